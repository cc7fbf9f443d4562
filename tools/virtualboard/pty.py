"""A board behind a serial port: MicroPython's unix port on a pty, so that mpremote drives it as it drives a chip.

The unix port ends where a chip resets, so a thread passes the bytes on and starts it again: after Ctrl-D (a soft reset,
which in the raw REPL runs no main.py) and after machine.reset() (code 42, which always does); it stays away after
machine.bootloader() (code 44). A chip is interrupted by the byte Ctrl-C itself; the unix port only by a signal, and
only has a handler for it while code runs. What a board prints while no host reads is lost after a moment, as a chip's
USB loses it: the board goes on.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from boardimage.agent import FIRMWARE

from .board import HEAP_BYTES, interpreter

HARD_RESET: Final = 42
BOOTLOADER: Final = 44
PATIENCE_S: Final = 0.5  # how long MicroPython's USB waits for a host that does not read
_BOOT: Final = """
import os
for name in {files!r}:
    try:
        os.stat(name)
    except OSError:
        continue
    with open(name) as source:
        code = source.read()
    try:
        exec(compile(code, name, "exec"))
    except SystemExit:  # a reset by the program itself, after which there is no prompt
        os.unsetenv("MICROPYINSPECT")
        raise
"""
_CHUNK: Final = 4096
_PROMPT_S: Final = 10.0
_SETTLE_S: Final = 3.0  # for an interpreter to start or to be interrupted, on a busy machine
_TICK_S: Final = 0.002
_RESTART_S: Final = 0.05  # a program that cannot start does not take the whole processor
_SIGINT_BIT: Final = 1 << (signal.SIGINT - 1)


class PtyBoard:
    """A board whose flash is `folder`/flash; a context manager. `port` is what mpremote connects to."""

    def __init__(
        self,
        folder: Path,
        program: Path | None = None,
        heap_bytes: int = HEAP_BYTES,
        left: Callable[[], None] | None = None,
    ) -> None:
        self._left = left  # called when it went into its bootloader
        self.flash = folder / "flash"
        self.flash.mkdir(parents=True, exist_ok=True)
        self._pins = folder / "pins"
        self._pins.mkdir(exist_ok=True)
        self._program = program or interpreter()
        self._heap = heap_bytes
        self._host, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._host, False)
        self._slave = slave  # kept open: no hang-up when a host closes the port
        self.port = os.ttyname(slave)
        self._wake, self._waker = os.pipe()
        self._raw = False
        self._heard = True
        self._ending = False
        self._thread = threading.Thread(target=self._pump, name="pty-board", daemon=True)
        self.boots = 0

    def __enter__(self) -> PtyBoard:
        self._boot(("boot.py", "main.py"))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        os.write(self._waker, b"x")
        self._thread.join()
        self.kill()
        self._process.wait()
        for descriptor in (self._board, self._host, self._slave, self._wake, self._waker):
            os.close(descriptor)

    def kill(self) -> None:
        """Take the power for a moment, which a board with a prompt shows as a soft reset."""
        self._process.kill()

    def _boot(self, files: tuple[str, ...]) -> None:
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(self._program)]
        command += ["-X", f"heapsize={self._heap}", "-c", _BOOT.format(files=files)]
        env = {"MICROPYPATH": f".:{FIRMWARE / 'boards/unix'}:.frozen", "BOARDLET_PINS": str(self._pins)}
        env |= {"PATH": os.environ.get("PATH", ""), "HOME": str(self._pins.parent), "MICROPYINSPECT": "1"}
        self._board, console = pty.openpty()
        os.set_blocking(self._board, False)
        _plain(console)
        # A session without a terminal of its own: Ctrl-C reaches it from _to_board only.
        self._process = subprocess.Popen(
            command, stdin=console, stdout=console, stderr=console, env=env, cwd=self.flash, start_new_session=True
        )
        os.close(console)
        self.boots += 1

    def _pump(self) -> None:
        while not self._ending:
            ready, _, _ = select.select([self._host, self._board, self._wake], [], [])
            if self._host in ready:
                self._to_board(os.read(self._host, _CHUNK))
            if self._board in ready:
                data = self._said()
                if data:
                    self._to_host(data)
                elif data is not None and not self._reset():
                    return

    def _said(self) -> bytes | None:
        # Empty once the interpreter has ended, None where it said nothing after all.
        try:
            return os.read(self._board, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # Linux says so when the other side has ended
            return b""

    def _to_host(self, data: bytes) -> None:
        self._heard = self._write(self._host, data, PATIENCE_S if self._heard else 0)

    def _to_board(self, data: bytes) -> None:
        raw, friendly = data.rfind(b"\x01"), data.rfind(b"\x02")
        if raw != friendly:
            self._raw = raw > friendly
        if b"\x03" in data:
            self._settle(lambda: self._executing() or self._at_prompt())
            if self._executing():
                self._process.send_signal(signal.SIGINT)
                self._settle(self._at_prompt)
                data = data.replace(b"\x03", b"")
        self._write(self._board, data, PATIENCE_S)

    def _write(self, descriptor: int, data: bytes, patience_s: float) -> bool:
        # Whether all of it went; what a reader leaves lying for so long is lost.
        while data:
            if not select.select([self._wake], [descriptor], [], patience_s)[1]:
                return False
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                return False
            except OSError:  # the interpreter has ended
                return False
        return True

    def _executing(self) -> bool:
        with open(f"/proc/{self._process.pid}/status") as status:
            caught = next(line.split()[1] for line in status if line.startswith("SigCgt"))
        return bool(int(caught, 16) & _SIGINT_BIT)

    def _at_prompt(self) -> bool:
        return not termios.tcgetattr(self._board)[3] & termios.IEXTEN

    def _settle(self, true: Callable[[], bool]) -> None:
        # The unix port throws away what it has not read when it comes to its prompt; a chip does not.
        deadline = time.monotonic() + _SETTLE_S
        while not true() and time.monotonic() < deadline:
            if select.select([self._board], [], [], _TICK_S)[0]:
                data = self._said()
                if data == b"":
                    return
                self._to_host(data or b"")

    def _reset(self) -> bool:
        # Whether MicroPython runs again.
        code = self._process.wait()
        if code == BOOTLOADER and self._left is not None:
            self._left()
            return False
        os.close(self._board)
        raw = self._raw and code != HARD_RESET
        self._to_host(b"MPY: soft reboot\r\n" if code != HARD_RESET else b"\r\n")
        self._raw = raw
        self._boot(("boot.py",) if raw else ("boot.py", "main.py"))
        if raw:
            self._enter_raw()
        elif code not in (0, HARD_RESET):
            select.select([self._wake], [], [], _RESTART_S)
        return True

    def _enter_raw(self) -> None:
        # The friendly banner is not for the host, which is in the raw REPL and stays there.
        said = b""
        while not said.endswith(b">>> "):
            if not select.select([self._board], [], [], _PROMPT_S)[0] or self._ending:
                return
            more = self._said()
            if more == b"":
                return
            said += more or b""
        self._write(self._board, b"\x01", PATIENCE_S)


def _plain(descriptor: int) -> None:
    # As a chip's UART: no echo, no signals, no translation of line ends.
    mode = termios.tcgetattr(descriptor)
    mode[0] &= ~(termios.ICRNL | termios.IXON)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)
