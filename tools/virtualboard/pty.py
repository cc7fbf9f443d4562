"""A board behind a serial port: MicroPython's unix port on a pty, so that mpremote drives it as it drives a chip.

The unix port ends where a chip resets, so a thread passes the bytes on and starts it again: after Ctrl-D (a soft reset,
which in the raw REPL runs no main.py) and after machine.reset() (code 42, which always does). A chip is interrupted by
the byte Ctrl-C itself; the unix port only by a signal, and only has a handler for it while code runs.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
import threading
import tty
from pathlib import Path
from types import TracebackType
from typing import Final

from boardimage.agent import FIRMWARE

from .board import HEAP_BYTES, interpreter

HARD_RESET: Final = 42
_BOOT: Final = """
import os
for name in {files!r}:
    try:
        os.stat(name)
    except OSError:
        continue
    with open(name) as source:
        code = source.read()
    exec(compile(code, name, "exec"))
"""
_CHUNK: Final = 4096
_SIGINT_BIT: Final = 1 << (signal.SIGINT - 1)


class PtyBoard:
    """A board whose flash is `folder`/flash; a context manager. `port` is what mpremote connects to."""

    def __init__(self, folder: Path, program: Path | None = None, heap_bytes: int = HEAP_BYTES) -> None:
        self.flash = folder / "flash"
        self.flash.mkdir(parents=True, exist_ok=True)
        (folder / "pins").mkdir(exist_ok=True)
        self._pins = folder / "pins"
        self._program = program or interpreter()
        self._heap = heap_bytes
        self._host, slave = pty.openpty()
        tty.setraw(slave)
        self._slave = slave  # kept open: no hang-up when a host closes the port
        self.port = os.ttyname(slave)
        self._wake, self._waker = os.pipe()
        self._raw = False
        self._thread = threading.Thread(target=self._pump, name="pty-board", daemon=True)
        self.boots = 0

    def __enter__(self) -> PtyBoard:
        self._boot(("boot.py", "main.py"))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._waker, b"x")
        self._thread.join()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        for descriptor in (self._board, self._host, self._slave, self._wake, self._waker):
            os.close(descriptor)

    def _boot(self, files: tuple[str, ...]) -> None:
        argv = [str(self._program), "-X", f"heapsize={self._heap}", "-i", "-c", _BOOT.format(files=files)]
        env = {"MICROPYPATH": f".:{FIRMWARE / 'boards/unix'}:.frozen", "BOARDLET_PINS": str(self._pins)}
        env |= {"PATH": os.environ.get("PATH", ""), "HOME": str(self._pins.parent)}
        pid, board = pty.fork()
        if pid == 0:
            try:
                os.chdir(self.flash)
                _plain(0)
                os.execve(argv[0], argv, env)
            finally:
                os._exit(127)
        self._pid, self._board = pid, board
        self.boots += 1

    def _pump(self) -> None:
        while True:
            ready, _, _ = select.select([self._host, self._board, self._wake], [], [])
            if self._wake in ready:
                return
            if self._host in ready:
                self._to_board(os.read(self._host, _CHUNK))
            if self._board in ready:
                try:
                    data = os.read(self._board, _CHUNK)
                except OSError:  # Linux says so when the other side has ended
                    data = b""
                if data:
                    os.write(self._host, data)
                else:
                    self._reset()

    def _to_board(self, data: bytes) -> None:
        raw, friendly = data.rfind(b"\x01"), data.rfind(b"\x02")
        if raw != friendly:
            self._raw = raw > friendly
        if b"\x03" in data and self._executing():
            os.kill(self._pid, signal.SIGINT)
            data = data.replace(b"\x03", b"")
        while data:
            data = data[os.write(self._board, data) :]

    def _executing(self) -> bool:
        with open(f"/proc/{self._pid}/status") as status:
            caught = next(line.split()[1] for line in status if line.startswith("SigCgt"))
        return bool(int(caught, 16) & _SIGINT_BIT) and not termios.tcgetattr(self._board)[3] & termios.ISIG

    def _reset(self) -> None:
        os.close(self._board)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        raw = self._raw and code != HARD_RESET
        os.write(self._host, b"MPY: soft reboot\r\n" if code != HARD_RESET else b"\r\n")
        self._raw = raw
        self._boot(("boot.py",) if raw else ("boot.py", "main.py"))
        if raw:
            self._enter_raw()

    def _enter_raw(self) -> None:
        # The friendly banner is not for the host, which is in the raw REPL and stays there.
        said = b""
        while not said.endswith(b">>> "):
            said += os.read(self._board, _CHUNK)
        os.write(self._board, b"\x01")


def _plain(descriptor: int) -> None:
    # As a chip's UART: no echo, no signals, no translation of line ends.
    mode = termios.tcgetattr(descriptor)
    mode[0] &= ~(termios.ICRNL | termios.IXON)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)
