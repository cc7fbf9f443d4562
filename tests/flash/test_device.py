"""The adapter around mpremote against a real MicroPython: files whole or not at all, and errors that say what to do."""

from __future__ import annotations

import time

import pytest
from boardlet_cli.device import CHUNK_BYTES, Device, DeviceError
from virtualboard.pty import PtyBoard

# Programs of a board whose flash is not what it was made for; boot.py runs before the prompt, as on a chip.
FULL = """
import builtins
_open = open
class Full:
    def __init__(self, f): self.f = f
    def write(self, b): raise OSError(28)
    def close(self): self.f.close()
builtins.open = lambda path, mode="r": Full(_open(path, mode)) if "w" in mode else _open(path, mode)
"""
DAMAGES = FULL.replace("raise OSError(28)", "return self.f.write(b.replace(b'o', b'0'))")
SAYS = """
import builtins
_import = __import__
class Implementation:
    name = {name!r}; version = {version!r}; _mpy = {mpy!r}; _machine = "x"
class Sys:
    implementation = Implementation; platform = "x"
builtins.__import__ = lambda name, *more: Sys if name == "sys" else _import(name, *more)
"""
RUNS = """
import time
with open("runs", "a") as f: f.write("x")
while True: time.sleep_ms(5)
"""


def test_a_file_is_written_whole(board: PtyBoard) -> None:
    """New folders are made, an old file is replaced, nothing is left beside it, and it reads as it was written."""
    told: list[int] = []
    content = bytes(range(256)) * 20
    with Device(board.port) as device:
        device.put("deep/er/x.bin", b"one")
        assert (board.flash / "deep/er/x.bin").read_bytes() == b"one"
        device.put("deep/er/x.bin", content, told.append)
        device.put("empty", b"")
        assert device.read("deep/er/x.bin") == content
        assert device.read("empty") == b""
        assert device.read("none") is None
        assert device.files("deep/er") == ["x.bin"]
        assert device.files("none") == []
    assert told == [*range(CHUNK_BYTES, len(content) + 1, CHUNK_BYTES)]
    assert (board.flash / "deep/er/x.bin").read_bytes() == content


def test_a_write_that_is_cut_leaves_the_old_file(board: PtyBoard) -> None:
    """The board loses power in the middle of a file: the old one is still there, whole."""
    with Device(board.port) as device:
        device.put("x.txt", b"old")
        with pytest.raises(DeviceError):
            device.put("x.txt", b"new" * 1000, lambda written: board.kill())
        assert (board.flash / "x.txt").read_bytes() == b"old"


@pytest.mark.parametrize(("boot", "words"), [(FULL, "the board says OSError: .*28"), (DAMAGES, "arrived damaged")])
def test_a_write_that_fails_leaves_the_old_file(board: PtyBoard, boot: str, words: str) -> None:
    """A full flash, or a cable that changes bytes, is told as what it is; nothing is left over of the new file."""
    (board.flash / "x.txt").write_bytes(b"old")
    (board.flash / "boot.py").write_text(boot)
    with Device(board.port) as device:
        with pytest.raises(DeviceError, match=words):
            device.put("x.txt", b"oooo")
        assert (board.flash / "x.txt").read_bytes() == b"old"
        assert not (board.flash / "x.txt.new").exists()


def test_a_folder_in_the_way(board: PtyBoard) -> None:
    """A file cannot take the place of a folder; the folder stays, and nothing beside it."""
    (board.flash / "full").mkdir()
    with Device(board.port) as device, pytest.raises(DeviceError, match="the board says"):
        device.put("full", b"x")
    assert [path.name for path in board.flash.iterdir()] == ["full"]


def test_info(board: PtyBoard) -> None:
    """A board says what it is."""
    with Device(board.port) as device:
        info = device.info()
    assert info.version >= (1, 25)
    assert info.platform == "linux"
    assert info.mpy & 0xFF == 6
    assert info.free_bytes > 0


@pytest.mark.parametrize(
    ("name", "version", "mpy", "words"),
    [
        ("micropython", (1, 24, 1), 6, "runs micropython 1.24.1; flash MicroPython 1.25 or newer"),
        ("circuitpython", (9, 2, 0), 6, "runs circuitpython 9.2.0; flash MicroPython"),
        ("micropython", (1, 30, 0), 7, "loads .mpy version 7, not 6"),
    ],
)
def test_another_interpreter(board: PtyBoard, name: str, version: tuple[int, ...], mpy: int, words: str) -> None:
    """What is too old, or no MicroPython, or loads other .mpy files, is named with its version."""
    (board.flash / "boot.py").write_text(SAYS.format(name=name, version=version, mpy=mpy))
    with Device(board.port) as device, pytest.raises(DeviceError, match=words):
        device.info()


def test_a_busy_port(board: PtyBoard) -> None:
    """A port that another program has open is not taken from it."""
    with Device(board.port) as first:
        with pytest.raises(DeviceError, match="is busy"), Device(board.port):
            pass
        assert first.info().version >= (1, 25)


def test_a_board_that_hangs(board: PtyBoard) -> None:
    """A board that falls silent in the middle is given up in bounded time."""
    with Device(board.port) as device:
        began = time.monotonic()
        with pytest.raises(DeviceError, match="does not answer any more"):
            device._run("while True: pass")
        assert time.monotonic() - began < 30


def test_looking_does_not_stop_a_board(unpowered: PtyBoard) -> None:
    """A main.py that was interrupted to look at the board, or by an error, runs again afterwards."""
    (unpowered.flash / "main.py").write_text(RUNS)
    with unpowered as board:
        runs(board, 1)
        with Device(board.port) as device:
            device.info()
        runs(board, 2)
        with pytest.raises(DeviceError), Device(board.port) as device:
            device._run("nothing")
        runs(board, 3)


def runs(board: PtyBoard, number: int) -> None:
    """Wait until main.py has started so often."""
    deadline = time.monotonic() + 10
    path = board.flash / "runs"
    while not path.exists() or len(path.read_text()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(path.read_text()) == number
