"""A blank chip behind a serial port with reset lines, as RFC 2217 carries them: what `rfc2217://HOST:PORT` connects to.

The lines drive the chip as the two transistors of a development board do: RTS alone holds it in reset, DTR alone pulls
BOOT down; when it is let go, a capacitor keeps it in reset for a moment, and then BOOT decides between ROM and flash.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from serial.rfc2217 import PortManager

from .chip import FLASH_BYTES
from .pty import PtyBoard
from .rom import CHIPS, ROM_BAUD, Faults, Rom

CAPACITOR_S: Final = 0.01
_CHUNK: Final = 4096
_BOOT_LOG: Final = (
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT)\r\nwaiting for download\r\n"
)


class _Lines:
    # The port that PortManager sets; what it has no meaning for is kept and given back.
    def __init__(self, uart: UartChip) -> None:
        self.__dict__["_uart"] = uart
        self.__dict__.update(baudrate=ROM_BAUD, bytesize=8, parity="N", stopbits=1, xonxoff=False, rtscts=False)
        self.__dict__.update(break_condition=False, dtr=False, rts=False, cts=True, dsr=True, ri=False, cd=True)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
        self._uart.lines_changed(self.dtr, self.rts)  # type: ignore[attr-defined]

    def reset_input_buffer(self) -> None: ...

    def reset_output_buffer(self) -> None: ...


class UartChip:
    """A chip that runs `firmware` once it is at `offset`; `url` is where it is reached. A context manager."""

    def __init__(
        self, folder: Path, firmware: bytes, offset: int, kind: str = "ESP32", faults: Faults | None = None
    ) -> None:
        self.folder = folder
        self.flash = bytearray(b"\xff" * FLASH_BYTES)
        self.rom = Rom(CHIPS[kind], self.flash, faults or Faults(), self._run_flash)
        self.board: PtyBoard | None = None
        self._firmware, self._offset = firmware, offset
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self._held = self._boot = False
        self._due: float | None = None  # when the capacitor lets it go
        self._console = -1
        self._client: socket.socket | None = None
        self._manager: PortManager | None = None
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._pump, name="uart-chip", daemon=True)

    def __enter__(self) -> UartChip:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._waker, b"x")
        self._thread.join()
        self._stop_board()
        self._hang_up()
        self._listener.close()
        os.close(self._wake)
        os.close(self._waker)

    def lines_changed(self, dtr: bool, rts: bool) -> None:
        """What the host has set the two lines to."""
        held, self._boot = rts and not dtr, dtr and not rts
        if held and not self._held:
            self._due = None
            self._stop_board()
        elif self._held and not held:
            self._due = time.monotonic() + CAPACITOR_S
        self._held = held

    def _pump(self) -> None:
        while True:
            watched: list[Any] = [self._wake, self._listener]
            watched += [self._client] if self._client else []
            watched += [self._console] if self._console >= 0 else []
            patience = max(0.0, self._due - time.monotonic()) if self._due is not None else None
            ready, _, _ = select.select(watched, [], [], patience)
            if self._wake in ready:
                return
            if self._due is not None and time.monotonic() >= self._due:
                self._due = None
                self._let_go()
            if self._listener in ready:
                self._hang_up()
                self._client, _ = self._listener.accept()
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._manager = PortManager(_Lines(self), self)
            elif self._client in ready:
                self._from_host()
            elif self._console in ready:
                with suppress(OSError):
                    self._to_host(os.read(self._console, _CHUNK))

    def _from_host(self) -> None:
        assert self._client is not None
        assert self._manager is not None
        try:
            data = self._client.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        plain = b"".join(self._manager.filter(data))
        if self._held or self._due is not None:
            return
        if self._console >= 0:
            os.write(self._console, plain)
        else:
            self._to_host(self.rom.receive(plain))

    def _to_host(self, data: bytes) -> None:
        if self._manager is not None:
            self.write(b"".join(self._manager.escape(data)))

    def write(self, data: bytes) -> None:
        """What PortManager has to say to the host."""
        if self._client is not None:
            with suppress(OSError):
                self._client.sendall(data)

    def _let_go(self) -> None:
        self.rom.reset()
        if self._boot:
            self._to_host(_BOOT_LOG)
        else:
            self._run_flash()

    def _run_flash(self) -> None:
        held = bytes(self.flash[self._offset : self._offset + len(self._firmware)])
        if held != self._firmware or self.board is not None:
            return
        board = PtyBoard(self.folder)
        self.board = board.__enter__()
        self._console = os.open(board.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def _stop_board(self) -> None:
        board, self.board = self.board, None
        if board is not None:
            os.close(self._console)
            self._console = -1
            board.__exit__(None, None, None)

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._manager = None
