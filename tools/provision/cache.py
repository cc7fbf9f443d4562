"""A cache of things that take long to make: `<root>/<name>/<version>/`, made once, shared by all checkouts of a user.

A thing is made in a folder beside its final place and renamed when it is whole, under a file lock. So what stands at
the final place is always complete: an interrupted maker leaves only a folder `….partial`, which the next one removes.
Scratch space that is worth keeping over a failure (downloads, compiler caches) is a folder of `scratch()`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .missing import Missing
from .progress import Progress, Silent, step

ROOT_VARIABLE = "BOARDLET_CACHE"


def root() -> Path:
    """The cache's root: `$BOARDLET_CACHE`, else `${XDG_CACHE_HOME:-~/.cache}/boardlet`."""
    chosen = os.environ.get(ROOT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "boardlet"


def artifact(
    name: str,
    version: str,
    build: Callable[[Path], None],
    *,
    progress: Progress | None = None,
    what: str | None = None,
    usual_s: float = 0.0,
) -> Path:
    """The folder of `name` at `version`; if it is not there yet, `build` fills an empty folder that becomes it.

    `what` and `usual_s` (seconds) are told to `progress` while it is being made. What `build` raises is passed on,
    and nothing is kept.
    """
    final = _place(name, version)
    if os.path.isdir(final):  # False also where it may not be looked at
        return final
    report = progress or Silent()
    with _locked(final, report):
        if not final.is_dir():  # another process may have made it while this one waited
            with step(report, what or f"making {name} {version}", usual_s):
                _make(final, build)
    return final


def there(name: str, version: str) -> bool:
    """Whether `name` at `version` has been made."""
    return os.path.isdir(_place(name, version))


def discard(name: str, version: str) -> None:
    """Remove what is cached as `name` at `version`, so that the next `artifact` makes it again."""
    final = _place(name, version)
    with _locked(final, Silent()):
        remove(final)


def scratch(name: str) -> Path:
    """A folder for what a maker of `name` wants to find again after a failure; the maker removes it when done."""
    folder = root() / "scratch" / name
    _have(folder)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder tree if it is there, in one rename first, so that no half of it is ever taken for the whole."""
    if not folder.is_dir():
        return
    doomed = folder.with_name(f"{folder.name}.doomed-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _make(final: Path, build: Callable[[Path], None]) -> None:
    partial = final.with_name(final.name + ".partial")
    remove(partial)
    partial.mkdir(parents=True)
    try:
        build(partial)
        partial.rename(final)
    finally:
        remove(partial)


def _place(name: str, version: str) -> Path:
    for part in (name, version):
        if not part or part.startswith(".") or "/" in part:
            raise ValueError(f"{part!r} is no name for a folder")
    return root() / name / version


def _have(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} may not be written")
    except OSError as error:
        raise Missing(f"a folder for the cache ({error})", f"set {ROOT_VARIABLE} to one that can be written") from error


@contextmanager
def _locked(final: Path, progress: Progress) -> Iterator[None]:
    _have(final.parent)
    with open(final.with_name(final.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(progress, f"waiting for another process that is making {final.parent.name}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, also when the process dies
