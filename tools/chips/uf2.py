"""Chips whose bootloader is a drive: a UF2 file copied onto it is the new image, and the drive vanishes when it is in.

The drive says what it is in INFO_UF2.TXT (https://github.com/microsoft/uf2#files-exposed-by-bootloaders). An unplugged
or rebooting drive gives I/O errors in the middle of the copy: with all bytes sent, these are how it goes away.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import NOT_FOUND, ChipError
from .boards import Kind, of_volume
from .ports import INFO, Port, volumes

VANISH_S: Final = 30.0  # a Pico takes two seconds
APPEAR_S: Final = 20.0  # for a desktop to mount the drive
_CHUNK: Final = 1 << 16
_POLL_S: Final = 0.1
_GONE: Final = (errno.EIO, errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.EROFS)


def kind_of(volume: Path) -> Kind:
    """Which kind of board the drive belongs to; raises ChipError."""
    try:
        text = (volume / INFO).read_text(errors="replace")
    except OSError as error:
        raise ChipError(
            f"{volume} is no boot volume ({error}): hold BOOTSEL while plugging the board in", NOT_FOUND
        ) from error
    said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    board_id = said.get("Board-ID", "").strip()
    kind = of_volume(board_id)
    if kind is None:
        raise ChipError(f"{volume} is a {board_id or 'board without Board-ID'}, which is not known", NOT_FOUND)
    return kind


def write(volume: Path, image: Path, percent: Callable[[float], None]) -> None:
    """Copy the file onto the drive, and return once the drive is gone; raises ChipError."""
    content = image.read_bytes()
    sent = 0
    try:
        with open(volume / image.name, "wb", buffering=0) as out:
            while sent < len(content):
                sent += out.write(content[sent : sent + _CHUNK])
                percent(100 * sent / len(content))
            os.fsync(out.fileno())
    except OSError as error:
        if sent < len(content) or error.errno not in _GONE:
            raise ChipError(
                f"{volume} took {sent} of {len(content)} bytes ({error}): hold BOOTSEL while plugging the board in, "
                "and run the same command again"
            ) from error
    deadline = time.monotonic() + VANISH_S
    while (volume / INFO).exists():
        if time.monotonic() > deadline:
            raise ChipError(
                f"{volume} is still there {VANISH_S:.0f} s after the copy, so that the board did not take the image: "
                "plug it in again with BOOTSEL held, and run the same command again"
            )
        time.sleep(_POLL_S)


def appeared(before: list[Port], kind: Kind) -> Path:
    """The drive of a board that was told to go into its bootloader; raises ChipError if none of its kind comes."""
    known = {port.path for port in before}
    deadline = time.monotonic() + APPEAR_S
    while time.monotonic() < deadline:
        for port in volumes():
            if port.path not in known and kind_of(Path(port.path)) == kind:
                return Path(port.path)
        time.sleep(_POLL_S)
    raise ChipError(
        f"no boot volume of a {kind.name} appeared within {APPEAR_S:.0f} s: mount it by hand, "
        "and name its folder instead of the port",
        NOT_FOUND,
    )
