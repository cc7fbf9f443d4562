"""Places: network namespaces of a test's own, held by one process each, and the links between them.

A place lasts as long as its process; then the kernel removes its interfaces, rules and, where it has them, mounts and
processes. Commands are run in one by what they are prefixed with.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from provision.missing import Missing
from provision.process import Process

# The first process of a place with processes of its own: it must take in whoever lost his parent.
_INIT: Final = "mount -t tmpfs tmpfs /run && while :; do sleep 3600 & wait $!; done"

_END_S: Final = 20.0
_POLL_S: Final = 0.01


class Place:
    """One network namespace; with `whole` also mounts and processes of its own, and an empty /run."""

    def __init__(self, name: str, folder: Path, whole: bool = False) -> None:
        self.name, self.whole = name, whole
        spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"] if whole else ["--net"]
        first = ["sh", "-c", _INIT] if whole else ["sleep", "infinity"]
        self._holder = Process(name, ["unshare", *spaces, "--", *first], log=folder / f"{name}.log")
        self.pid = 0

    def start(self) -> None:
        """Make it; raises `Missing` where this machine does not allow it."""
        self._holder.start()
        self._holder.wait_until(self._entered)
        self.run("ip", "link", "set", "lo", "up")

    def _entered(self) -> bool:
        holder = self._holder.pid
        if holder is None:
            raise Missing("namespaces", f"unshare failed: {self._holder.tail()[-300:]}")
        self.pid = holder
        if self.whole:
            children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
            if not children:
                return False
            self.pid = int(children[0])
            if Path(f"/proc/{self.pid}/comm").read_text().strip() == "unshare":
                return False
        return os.readlink(f"/proc/{self.pid}/ns/net") != os.readlink("/proc/self/ns/net")

    @property
    def net(self) -> list[str]:
        """The prefix of a command that shares the place's network, and is else where it is started."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    @property
    def inside(self) -> list[str]:
        """The prefix of a command that shares all that the place has; it ends with the place."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--"] if self.whole else self.net

    def run(self, *command: str | Path, stdin: str = "", env: dict[str, str] | None = None) -> str:
        """Run a command in the place's network and return what it said; raises RuntimeError if it fails."""
        argv = [*self.net, *map(str, command)]
        done = subprocess.run(argv, input=stdin, env=env, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout

    def wrapper(self, path: Path, program: Path, env: Sequence[str] = ()) -> Path:
        """Write a script that runs `program` in the place's network; returns its path."""
        path.write_text(f'#!/bin/sh\nexec {" ".join([*self.net, "env", *env, str(program)])} "$@"\n')
        path.chmod(0o755)
        return path

    def stop(self) -> None:
        """End it, with everything inside."""
        self._holder.kill()
        deadline = time.monotonic() + _END_S
        while self.whole and self.pid and Path(f"/proc/{self.pid}").exists() and time.monotonic() < deadline:
            time.sleep(_POLL_S)  # its last breath ends all processes and frees its mounts


def link(one: Place, other: Place, network: str) -> None:
    """Join two places: addresses NETWORK.1 and NETWORK.2, interfaces named after the other side."""
    one.run("ip", "link", "add", other.name, "type", "veth", "peer", "name", one.name, "netns", str(other.pid))
    for place, far, last in ((one, other, 1), (other, one, 2)):
        place.run("ip", "address", "add", f"{network}.{last}/24", "dev", far.name)
        place.run("ip", "link", "set", far.name, "up")
