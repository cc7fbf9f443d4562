"""An image of MicroPython in a file: what it is, read from its own bytes, and whether it fits a kind of board.

Espressif images begin with 0xE9 and, but for the ESP8266, name the chip in their header:
https://docs.espressif.com/projects/esptool/en/latest/esp32/advanced-topics/firmware-image-format.html
UF2 files are blocks of 512 bytes with a family id: https://github.com/microsoft/uf2
A .dfu for an STM32 is DfuSe (ST's UM0391), and ends with a CRC over all of it (USB DFU 1.1, appendix B).
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from . import BAD_IMAGE, ChipError
from .boards import Kind

OLDEST: Final = (1, 25)
ESP_MAGIC: Final = 0xE9
UF2_MAGIC: Final = (0x0A324655, 0x9E5D5157)
UF2_END: Final = 0x0AB16F30
UF2_BLOCK: Final = 512
DFU_MAGIC: Final = b"DfuSe"
_DFU_SUFFIX: Final = struct.Struct("<HHHH3sBI")
_STM_VENDOR: Final = 0x0483
_STM32_FLASH: Final = range(0x08000000, 0x08400000)
_UF2_FAMILY: Final = 0x2000  # flag: the word at 28 is a family id
_ABSOLUTE: Final = 0xE48BFF57  # RP2350: a block for every family, which works around a fault of the chip
_MAX_BYTES: Final = 64 << 20
_VERSION: Final = re.compile(rb"MicroPython v?(\d+)\.(\d+)(?:\.(\d+))?|\0v(\d+)\.(\d+)\.(\d+)(?:-[\w.]+)?\0")


@dataclass(frozen=True)
class ImageFile:
    """A file that was read whole; `name` is what the user calls it."""

    name: str
    path: Path
    content: bytes

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def version(self) -> tuple[int, ...] | None:
        """Of the MicroPython in it, None where it does not say."""
        found = _VERSION.search(self.content)
        return tuple(int(part) for part in found.groups() if part is not None) if found else None

    def check(self, kind: Kind) -> None:
        """Raises ChipError if it is damaged, for another chip, or too old."""
        self.check_chip(kind)
        if self.version is not None and self.version[:2] < OLDEST:
            have = ".".join(map(str, self.version))
            raise ChipError(
                f"{self.name} is MicroPython {have}, and 1.25 or newer is needed: get one from {kind.page}", BAD_IMAGE
            )

    def check_chip(self, kind: Kind) -> None:
        """Raises ChipError if it is damaged, or for another chip; however old."""
        if kind.method == "esptool":
            self._check_esp(kind)
        elif kind.method == "uf2":
            self._check_uf2(kind)
        elif wrong := self._no_dfu():
            raise ChipError(f"{self.name} {wrong}: take the .dfu from {kind.page}", BAD_IMAGE)

    def _check_esp(self, kind: Kind) -> None:
        if len(self.content) < 24 or self.content[0] != ESP_MAGIC:
            raise ChipError(
                f"{self.name} is no image for {kind.chip}, it does not begin with 0xE9: take the .bin from {kind.page}",
                BAD_IMAGE,
            )
        chip_id = struct.unpack_from("<H", self.content, 12)[0]
        if kind.image_chip_id is not None and chip_id != kind.image_chip_id:
            raise ChipError(
                f"{self.name} is for the chip with the id {chip_id}, and the {kind.chip} has {kind.image_chip_id}: "
                f"take the one from {kind.page}",
                BAD_IMAGE,
            )

    def _no_dfu(self) -> str:
        # What is wrong with an image for an STM32, "" if nothing is: a .dfu, or a .bin with its vectors first.
        if not self.content.startswith(DFU_MAGIC):
            entry = struct.unpack_from("<II", self.content)[1] if len(self.content) >= 8 else 0
            right = entry & 1 and entry - 1 in _STM32_FLASH
            return "" if right else "is no .dfu, nor a .bin that begins with an STM32's vectors"
        *_, vendor, _, mark, size, crc = _DFU_SUFFIX.unpack(self.content[-_DFU_SUFFIX.size :].rjust(16, b"\0"))
        if mark != b"UFD" or size != _DFU_SUFFIX.size or crc != zlib.crc32(self.content[:-4]) ^ 0xFFFFFFFF:
            return "is damaged: its last bytes are not those of a whole .dfu"
        return "" if vendor == _STM_VENDOR else f"is for the USB vendor {vendor:04x}, not for {_STM_VENDOR:04x}"

    def _check_uf2(self, kind: Kind) -> None:
        if not self.content or len(self.content) % UF2_BLOCK:
            raise ChipError(f"{self.name} is no whole UF2 file: take the .uf2 from {kind.page}", BAD_IMAGE)
        families = set()
        for start in range(0, len(self.content), UF2_BLOCK):
            head = struct.unpack_from("<8I", self.content, start)
            if head[:2] != UF2_MAGIC or struct.unpack_from("<I", self.content, start + UF2_BLOCK - 4)[0] != UF2_END:
                raise ChipError(
                    f"{self.name} is damaged at block {start // UF2_BLOCK}: get it again from {kind.page}", BAD_IMAGE
                )
            if head[2] & _UF2_FAMILY:
                families.add(head[7])
        if not families - {_ABSOLUTE} <= set(kind.families) or not families:
            have = ", ".join(f"{family:#x}" for family in sorted(families)) or "none"
            raise ChipError(
                f"{self.name} is for the family {have}, not for {kind.chip}: take the one from {kind.page}", BAD_IMAGE
            )


def read(path: Path) -> ImageFile:
    """The file at `path`; raises ChipError."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ChipError(f"{path} is larger than any image ({_MAX_BYTES >> 20} MiB)", BAD_IMAGE)
        return ImageFile(path.name, path, path.read_bytes())
    except OSError as error:
        raise ChipError(f"cannot read the image: {error}", BAD_IMAGE) from error
