# For a virtual board: as os.py in its flash this wins over the built-in module, and counts what the agent writes there.
# A file "cut" beside the pins, "K clean" or "K torn", cuts the power at write K from now: before it, or when half of it
# is done. The board says so in a file "dead" and stands still; whoever wrote "cut" takes the power away then.
import builtins

from uos import *  # noqa: F403
from uos import getenv
from uos import remove as _remove

_PINS = getenv("BOARDLET_PINS")
_open = builtins.open


def _due():
    # "", or how this very write is cut.
    try:
        with _open(_PINS + "/cut") as f:
            left, how = f.read().split()
    except OSError:
        return ""
    if int(left):
        with _open(_PINS + "/cut", "w") as f:
            f.write(str(int(left) - 1) + " " + how)
        return ""
    return how


def _die():
    with _open(_PINS + "/dead", "w") as f:
        f.write("1")
    while True:
        pass


class _File:
    def __init__(self, file):
        self.file = file

    def write(self, data):
        how = _due()
        if how == "torn":
            self.file.write(memoryview(data)[: len(data) // 2])
        if how:
            _die()
        return self.file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def _opened(path, mode="r", *more):
    if not path.startswith("state/") or "w" not in mode:
        return _open(path, mode, *more)
    how = _due()
    if how == "clean":
        _die()
    file = _open(path, mode, *more)  # which empties it
    if how:
        _die()
    return _File(file)


def remove(path):
    how = _due() if path.startswith("state/") else ""
    if how == "clean":
        _die()
    try:
        _remove(path)
    finally:
        if how:
            _die()


builtins.open = _opened
