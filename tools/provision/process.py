"""Children of this program: servers that must be stoppable, pausable, and gone when this program is gone.

A child runs in a process group of its own (a Ctrl-C on the terminal does not reach it before its owner decides) and
asks the kernel to kill it when its parent dies (`setpriv --pdeathsig`). The kernel means the *thread* that started it,
so one thread of this module, which lives as long as the program, starts them all.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from shutil import which

from .missing import Missing

STOP_S = 10.0  # a server that needs longer to end is stuck
READY_S = 60.0  # a busy machine of two cores starts a control plane in 20 s
_POLL_S = 0.01  # a child's start has no event to wait for
_FIRST_PORT = 10240  # above what well-known servers take
_PORT_TRIES = 100
_RESERVED = 64  # ports that a process keeps for itself; the servers of those before have long started
_reserved: deque[socket.socket] = deque()
_TAIL_BYTES = 3000  # the end of a log that fits a screen
# The parent may have died before the kernel was asked to watch it: then do not run at all.
_UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'


class Died(Exception):
    """A child ended although it should run; the message has the end of its log."""


class NotReady(Exception):
    """A child runs, and was not ready in time; the message has the end of its log."""


class Process:
    """One child: `argv`, its output appended to the file `log`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log = log
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None if it does not run."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the child runs (or is paused)."""
        return self.pid is not None

    @property
    def returncode(self) -> int | None:
        """The exit code of the child's last run, None if it runs or never ran."""
        return self._child.poll() if self._child is not None else None

    def start(self) -> None:
        """Start the child; raises `RuntimeError` if it runs already."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self._child = _starter.start(self._spawn)

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End the child: ask (TERM), and after `timeout_s` seconds insist (KILL); paused or ended is fine too."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a paused child cannot obey
        if self._child is None:
            return
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the child and its group at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def pause(self) -> None:
        """Freeze the child: its sockets stay open, and it answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused child go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child's group; nothing if it has ended."""
        pid = self.pid  # polled just now, so the pid cannot be another's: an unreaped child keeps its own
        if pid is not None:
            os.killpg(pid, number)

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = READY_S) -> None:
        """Wait until `ready()`; raises `Died` if the child ends before, `NotReady` after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                raise Died(f"{self.name} ended with code {self.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} was not ready after {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(_POLL_S)

    def tail(self) -> str:
        """The end of the child's log."""
        if not self.log.exists():
            return f"(no log at {self.log})"
        with open(self.log, "rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _spawn(self) -> subprocess.Popen[bytes]:
        setpriv = which("setpriv")
        if setpriv is None:
            raise Missing("setpriv", "install the package util-linux")
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [setpriv, "--pdeathsig", "KILL", "--", "sh", "-c", _UNLESS_ORPHANED, str(os.getpid()), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                process_group=0,
            )


class _Starter:
    # The one thread that starts children; made at the first start, and again in a forked copy of the program.
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._orders: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]

    def start(self, spawn: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        answer: Future[subprocess.Popen[bytes]] = Future()
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._orders = os.getpid(), queue.SimpleQueue()
                threading.Thread(target=self._run, name="child-starter", daemon=True).start()
            self._orders.put((spawn, answer))
        return answer.result()

    def _run(self) -> None:
        while True:
            spawn, answer = self._orders.get()
            try:
                answer.set_result(spawn())
            except BaseException as error:  # passed on to the one who asked
                answer.set_exception(error)


_starter = _Starter()


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on now, and that no client will be given either.

    Kernels hand out the ports of their ephemeral range to clients: a server that gives up such a port for a moment
    may not get it back, and a client that retries may even connect to itself. So it is one from below that range.
    Nobody else who asks here is given it for a while, in no other process either: its server may start only later.
    """
    for _ in range(_PORT_TRIES):
        port = random.randrange(_FIRST_PORT, _first_ephemeral_port())
        with socket.socket() as probe:
            if not _reserve(port):
                continue
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Missing("a free TCP port on loopback", f"{_PORT_TRIES} random ports were all taken; close something")


def _reserve(port: int) -> bool:
    # A name of the kernel's, which goes with the process that holds it: one lock for all processes, and no file.
    if sys.platform != "linux":
        return True
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0boardlet-port-{port}")
    except OSError:
        held.close()
        return False
    _reserved.append(held)
    if len(_reserved) > _RESERVED:
        _reserved.popleft().close()
    return True


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        first = 32768
    return first if first > 2 * _FIRST_PORT else 32768  # a range that leaves nothing below: take Linux' own default


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts TCP connections at `port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
