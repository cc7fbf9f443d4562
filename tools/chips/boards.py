"""The kinds of board that can be flashed: one folder in firmware/boards each, with a board.json and a manifest.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "firmware/boards"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of board, and how an image of MicroPython gets onto it."""

    key: str
    """Its folder's name."""
    name: str
    chip: str
    """As esptool names it, or the maker."""
    micropython_board: str
    """The board of MicroPython's own build whose image fits it."""
    page: str
    """Where such images are to be had."""
    method: str
    """esptool, uf2 or dfu."""
    offset: int = 0
    """Where in flash the image begins (esptool; dfu for a .bin)."""
    image_chip_id: int | None = None
    """In the image's header; None where it has none (ESP8266)."""
    volume_ids: tuple[str, ...] = ()
    """Board-IDs in the INFO_UF2.TXT of its boot volume (uf2)."""
    families: tuple[int, ...] = ()
    """Family ids in the blocks of its images (uf2)."""
    command: tuple[str, ...] = ()
    """What writes the image that is appended to it (dfu)."""


@cache
def kinds() -> Mapping[str, Kind]:
    """All kinds, by key."""
    return {path.parent.name: _kind(path) for path in sorted(FOLDER.glob("*/board.json"))}


def of_chip(chip: str) -> Kind | None:
    """The kind for a chip as esptool names it, None for one that is not known."""
    return next((kind for kind in kinds().values() if kind.chip == chip), None)


def of_volume(board_id: str) -> Kind | None:
    """The kind for a UF2 volume's Board-ID, None for one that is not known."""
    return next((kind for kind in kinds().values() if board_id in kind.volume_ids), None)


def of_machine(platform: str, machine: str) -> Kind | None:
    """The kind of a board that runs MicroPython, by its sys.platform and the chip that its machine name ends with."""
    chip = machine.rpartition(" with ")[2]
    for kind in kinds().values():
        plain = kind.chip.replace("-", "")
        if platform in ("esp32", "esp8266") and chip.replace("-", "").upper() == plain:
            return kind
        if platform == "rp2" and chip.upper().startswith(plain):
            return kind
        if platform == "pyboard" and kind.method == "dfu":
            return kind
    # An ESP32 names its module ("ESP32 module with ESP32"), some boards a variant ("ESP32S3-OCTAL-SPIRAM").
    found = [k for k in kinds().values() if chip.replace("-", "").upper().startswith(k.chip.replace("-", ""))]
    return max(found, key=lambda kind: len(kind.chip), default=None)


def _kind(path: Path) -> Kind:
    raw: dict[str, Any] = json.loads(path.read_text())
    flash = raw["flash"]
    return Kind(
        path.parent.name,
        raw["name"],
        raw["chip"],
        raw["micropython_board"],
        raw["page"],
        flash["method"],
        int(flash.get("offset", "0"), 0),
        flash.get("image_chip_id"),
        tuple(flash.get("board_ids", ())),
        tuple(int(family, 0) for family in flash.get("families", ())),
        tuple(flash.get("command", ())),
    )
