"""What the kernel says about the folder (inotify): which files to look at, with no interval of polling on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from asyncinotify import Event, Inotify, Mask, Watch

# A file that is being written is looked at when it is closed; one that is put in place by a rename, at once.
_CHANGES: Final = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.CREATE | Mask.DELETE | Mask.ATTRIB
_ENDS: Final = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT
# Of these the whole folder is looked at: a folder in it came or went, or the kernel's queue overflowed.
_WHOLE: Final = _ENDS | Mask.ISDIR | Mask.Q_OVERFLOW | Mask.IGNORED
_SWAPPED: Final = "..data"  # the link that Kubernetes puts in place when it changes a mounted ConfigMap


class Notify:
    """Watches folders below `root`; to be used as a context manager, on a running loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inotify = Inotify()
        self._watches: dict[Path, Watch] = {}

    def __enter__(self) -> Notify:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()

    def follow(self, folders: Iterable[Path]) -> None:
        """Watch these from now on; raises OSError, as where the kernel allows no more watches."""
        wanted = set(folders)
        for gone in self._watches.keys() - wanted:
            self._watches.pop(gone)  # what was removed is not watched any more; of what was moved, nothing is told
        for path in wanted:
            # Anew also where it is watched: another folder of this name may be there by now.
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile, and that is told
                watch = self._watches[path] = self._inotify.add_watch(path, _CHANGES | _ENDS)
                watch.path = path  # of a folder that was renamed the kernel has the old watch

    async def changed(self) -> set[str] | None:
        """Names of files below the root that may have changed, None for any of them."""
        return self._named(await self._inotify.get())

    def _named(self, event: Event) -> set[str] | None:
        if event.mask & _WHOLE or event.path is None or event.name is None or str(event.name) == _SWAPPED:
            return None
        try:
            return {str(event.path.relative_to(self._root))}
        except ValueError:
            return None
