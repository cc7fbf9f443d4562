"""A control group of a node's own, under which its kubelet puts pods."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_VERSION_1: Final = ("memory", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "pids", "hugetlb", "systemd")


class Cgroup:
    """The group `name` in every hierarchy that this machine has."""

    def __init__(self, name: str) -> None:
        self.name = name
        there = [_ROOT / controller for controller in _VERSION_1 if (_ROOT / controller).is_dir()]
        self.folders = [folder / name for folder in there or [_ROOT]]

    def make(self) -> None:
        """Make it; a kubelet does not make the one that it starts from."""
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):  # version 1 gives a new group none
                if folder.parent.name == "cpuset":
                    (folder / file).write_text((folder.parent / file).read_text())

    def remove(self) -> None:
        """Remove it and all groups below; its processes must have ended."""
        for folder in self.folders:
            for group in sorted(folder.glob("**/"), reverse=True):
                with suppress(OSError):  # one that is not empty is seen by who looks for leftovers
                    group.rmdir()
