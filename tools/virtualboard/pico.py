"""A Pico with BOOTSEL held: a folder that is its boot volume takes a UF2 file, vanishes, and MicroPython has a port.

The ROM of the chip takes blocks as they arrive and reboots when it has the last one; so does this, by watching the
folder: a file that is not whole yet is not taken, a block of another family neither.
"""

from __future__ import annotations

import shutil
import struct
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from .pty import PtyBoard

INFO: Final = "UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: {board_id}\n"
NAME: Final = "usb-MicroPython_Board_in_FS_mode_{serial}-if00"
_BLOCK: Final = 512
_POLL_S: Final = 0.02


class VirtualPico:
    """A chip whose boot volume is `volume`; once it has an image its port appears in `ports`. A context manager."""

    def __init__(
        self,
        folder: Path,
        volume: Path,
        ports: Path,
        board_id: str = "RPI-RP2",
        family: int = 0xE48BFF56,
        serial: str = "e6614103e7",
        takes: bool = True,
    ) -> None:
        self.folder, self.volume, self.ports = folder, volume, ports
        self.serial = serial
        self.image = b""
        """What is in its flash."""
        self.board: PtyBoard | None = None
        self._board_id, self._family, self._takes = board_id, family, takes
        self._wake = threading.Event()
        self._ending = self._bootsel = False
        self._thread = threading.Thread(target=self._watch, name="virtual-pico", daemon=True)

    @property
    def port(self) -> Path:
        """The link to its serial port, while MicroPython runs."""
        return self.ports / NAME.format(serial=self.serial)

    def __enter__(self) -> VirtualPico:
        self.ports.mkdir(parents=True, exist_ok=True)
        self._mount()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._thread.join()
        self._stop()

    def _mount(self) -> None:
        partial = self.volume.with_name(f".{self.volume.name}")
        partial.mkdir(parents=True)
        (partial / "INFO_UF2.TXT").write_text(INFO.format(board_id=self._board_id))
        partial.rename(self.volume)

    def _watch(self) -> None:
        while not self._ending:
            if self._bootsel:
                self._bootsel = False
                self._stop()
                self._mount()
            elif self.volume.is_dir() and self._takes:
                self._look()
            self._wake.wait(_POLL_S)

    def _look(self) -> None:
        for path in self.volume.glob("*.uf2"):
            content = path.read_bytes()
            if len(content) < _BLOCK:
                continue
            head = struct.unpack_from("<8I", content)
            if head[7] == self._family and len(content) == head[6] * _BLOCK:
                self.image = content
                doomed = self.volume.with_name(f".{self.volume.name}-gone")
                self.volume.rename(doomed)
                shutil.rmtree(doomed)
                self._start()
                return

    def _start(self) -> None:
        board = PtyBoard(self.folder, left=self._left)
        self.board = board.__enter__()
        self.port.symlink_to(board.port)

    def _left(self) -> None:
        self._bootsel = True

    def _stop(self) -> None:
        board, self.board = self.board, None
        with suppress(FileNotFoundError):
            self.port.unlink()
        if board is not None:
            board.__exit__(None, None, None)
