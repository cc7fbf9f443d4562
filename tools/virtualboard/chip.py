"""A chip as it comes out of its bag: a ROM that esptool talks to; once its image is in flash, MicroPython runs.

Ports are links in a folder, named as udev names those in /dev/serial/by-id (set BOARDLET_PORTS to it). Behind a UART
bridge the port stays when the chip starts; a chip with USB of its own leaves the bus and comes back under another name
and path. No pseudo-terminal has reset lines: the chip starts when esptool tells it to, or somebody presses reset.
"""

from __future__ import annotations

import os
import pty
import select
import termios
import threading
import tty
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from .pty import PtyBoard
from .rom import CHIPS, ROM_BAUD, Faults, Rom, Unplugged

FLASH_BYTES: Final = 4 << 20
MAC: Final = "240ac4123456"
UART_NAME: Final = "usb-Silicon_Labs_CP2102_USB_to_UART_Bridge_{serial}-if00-port0"
ROM_NAME: Final = "usb-Espressif_USB_JTAG_serial_debug_unit_{serial}-if00"
BOARD_NAME: Final = "usb-MicroPython_Board_in_FS_mode_{serial}-if00"
_CHUNK: Final = 4096
_SPEEDS: Final = {termios.B115200: 115200, termios.B230400: 230400, termios.B460800: 460800, termios.B921600: 921600}
_NO_IMAGE: Final = b"invalid header: 0xffffffff\r\n"  # what an ESP32's ROM says of an empty flash


class VirtualChip:
    """A chip whose ports appear in `ports`; MicroPython starts if `firmware` is at `offset`. A context manager."""

    def __init__(
        self,
        folder: Path,
        ports: Path,
        firmware: bytes,
        offset: int,
        kind: str = "ESP32",
        *,
        own_usb: bool = False,
        serial: str = MAC,
        faults: Faults | None = None,
    ) -> None:
        self.folder, self.ports, self.serial = folder, ports, serial
        ports.mkdir(parents=True, exist_ok=True)
        self.flash = bytearray(b"\xff" * FLASH_BYTES)
        self.faults = faults or Faults()
        self.rom = Rom(CHIPS[kind], self.flash, self.faults, lambda: self._ask("start"))
        self.board: PtyBoard | None = None
        self._firmware, self._offset, self._own_usb = firmware, offset, own_usb
        self._kept: list[int] = []  # ends of ports that a host may still have open
        self._host = -1
        self._asked: list[str] = []
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._pump, name="virtual-chip", daemon=True)

    @property
    def port(self) -> Path:
        """Where it can be reached now."""
        return self.ports / self._name()

    def __enter__(self) -> VirtualChip:
        self._enter_rom()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ask("end")
        self._thread.join()
        self._stop_board()
        self._unlink()
        for descriptor in (*self._kept, self._host, self._wake, self._waker):
            with suppress(OSError):
                os.close(descriptor)

    def unplug(self) -> None:
        """Pull its cable; returns when it is gone."""
        self._ask("unplug")
        self._until_done()

    def plug(self) -> None:
        """Put its cable in again while BOOT is held."""
        self._ask("rom")
        self._until_done()

    def press_reset(self) -> None:
        """Reset it with BOOT let go."""
        self._ask("start")
        self._until_done()

    def _ask(self, what: str) -> None:
        self._asked.append(what)
        os.write(self._waker, b"x")

    def _until_done(self) -> None:
        done = threading.Event()
        self._done = done
        self._ask("tell")
        done.wait(10)

    def _pump(self) -> None:
        while True:
            watched = [self._wake] if self._host < 0 else [self._wake, self._host]
            ready, _, _ = select.select(watched, [], [])
            if self._host in ready:
                self._serve()
            elif self._wake in ready:
                os.read(self._wake, 1)
                what = self._asked.pop(0)
                if what == "end":
                    return
                self._obey(what)

    def _obey(self, what: str) -> None:
        if what == "start":
            self._start()
        elif what == "rom":
            self._stop_board()
            self._enter_rom()
        elif what == "unplug":
            self._stop_board()
            self._leave_port()
        elif what == "tell":
            self._done.set()

    def _serve(self) -> None:
        try:
            self.rom.baud = _SPEEDS.get(termios.tcgetattr(self._host)[5], ROM_BAUD)
            answer = self.rom.receive(os.read(self._host, _CHUNK))
            while answer:
                answer = answer[os.write(self._host, answer) :]
        except Unplugged:
            self._leave_port()

    def _enter_rom(self) -> None:
        self.rom.reset()
        self._leave_port()
        self._host, slave = pty.openpty()
        tty.setraw(slave)
        self._kept.append(slave)  # no hang-up when a host closes the port
        self._link(os.ttyname(slave))

    def _start(self) -> None:
        # esptool may have changed the flash mode and size in the header.
        end = self._offset + len(self._firmware)
        held = bytes(self.flash[self._offset : end])
        if held[:2] + held[4:] != self._firmware[:2] + self._firmware[4:]:
            if self._host >= 0:
                os.write(self._host, _NO_IMAGE)
            return
        self._stop_board()
        self._unlink()
        if self._host >= 0:  # the host has it open, and is about to close it
            self._kept.append(self._host)
            self._host = -1
        board = PtyBoard(self.folder, left=lambda: self._ask("rom"))
        self.board = board.__enter__()
        self._link(board.port)

    def _stop_board(self) -> None:
        board, self.board = self.board, None
        if board is not None:
            self._unlink(running=True)
            board.__exit__(None, None, None)

    def _leave_port(self) -> None:
        # A host that has it open gets an error, as from a USB device that is gone.
        self._unlink()
        if self._host >= 0:
            for descriptor in (self._host, *self._kept):
                os.close(descriptor)
            self._host = -1
            self._kept.clear()

    def _name(self, running: bool | None = None) -> str:
        running = self.board is not None if running is None else running
        form = UART_NAME if not self._own_usb else BOARD_NAME if running else ROM_NAME
        return form.format(serial=self.serial)

    def _link(self, target: str) -> None:
        partial = self.ports / f".{self.serial}"
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        partial.rename(self.port)

    def _unlink(self, running: bool | None = None) -> None:
        (self.ports / self._name(running)).unlink(missing_ok=True)
