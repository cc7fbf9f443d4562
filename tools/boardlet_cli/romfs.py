"""The agent in a board's ROMFS, where its code runs in place and takes no heap, instead of in files on its flash.

ROMFS is taken if the board's MicroPython has a partition for it that is large enough, that holds nothing but an agent,
and whose content would be found: what is frozen into the image, and a file or folder on the flash, come before it.
Otherwise the agent's files go to the flash. main.py is always there, because MicroPython starts it from nowhere else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from boardimage import Image, romfs
from boardimage.agent import FOLDERS

from boardlet_cli.device import PARTIAL, Device

CODE: Final = (".py", ".mpy")
_ERASED: Final = b"\xff"  # in the name of a file: writing was interrupted within it


@dataclass(frozen=True, slots=True)
class Rom:
    """What a board's ROMFS is to hold."""

    image: bytes = field(repr=False)
    right: bool
    """It holds it already."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where the agent goes, and why."""

    rom: Rom | None
    why: str


def choose(device: Device, agent: Image) -> Way:
    """Which of the two ways the agent takes to this board; raises DeviceError."""
    size = device.rom_bytes()
    if not size:
        return Way(None, "the board has no ROMFS partition")
    image = romfs(inside(agent))
    if len(image) > size:
        return Way(None, f"its ROMFS partition of {size} bytes is too small for {len(image)}")
    if frozen := device.frozen_agent():
        return Way(None, f"the agent {frozen} in its image would hide one in ROMFS")
    if others := foreign(device):
        return Way(None, f"its ROMFS holds {others[0]}, which is not Boardlet's")
    if hiding := [path for path in _on_flash(device) if not path.endswith((*CODE, PARTIAL))]:
        return Way(None, f"{hiding[0]} on its flash would hide what is in ROMFS")
    return Way(Rom(image, _is_on(device, image)), f"its ROMFS partition of {size} bytes has room for {len(image)}")


def is_right(device: Device, agent: Image) -> bool:
    """Whether its ROMFS holds this agent."""
    image = romfs(inside(agent))
    return len(image) <= device.rom_bytes() and _is_on(device, image)


def inside(agent: Image) -> Image:
    """Those of the agent's files that go into ROMFS."""
    return {path: content for path, content in agent.items() if path.partition("/")[0] in FOLDERS}


def beside(agent: Image) -> Image:
    """Those that lie on the flash all the same: main.py, and what a board has until it has an identity."""
    return {path: content for path, content in agent.items() if path.partition("/")[0] not in FOLDERS}


def held(device: Device) -> bool:
    """Whether there is an agent in its ROMFS, whole or not."""
    return any(_is_code(path) for path in device.rom_files())


def runs(device: Device) -> bool:
    """Whether an agent in its ROMFS is the one that is found: nothing on the flash has the name of a folder of it."""
    return held(device) and not any(device.has(folder) for folder in FOLDERS)


def stops(device: Device, way: Way) -> bool:
    """Whether the board may start no agent while its files are changed this way.

    An agent that is on the flash with all its folders is the one that runs, whatever is in ROMFS, until it is removed.
    """
    whole = all(device.files(folder) for folder in FOLDERS)
    return not whole and (way.rom is not None or held(device))


def foreign(device: Device) -> list[str]:
    """Files of its ROMFS that no agent has."""
    return [path.decode(errors="replace") for path in device.rom_files() if _ERASED not in path and not _is_code(path)]


def _is_on(device: Device, image: bytes) -> bool:
    return device.rom_sha256(len(image)) == hashlib.sha256(image).hexdigest()


def _is_code(path: bytes) -> bool:
    return path.decode(errors="replace").partition("/")[0] in FOLDERS and path.endswith((b".py", b".mpy"))


def _on_flash(device: Device) -> list[str]:
    return [f"{folder}/{name}" for folder in FOLDERS for name in device.files(folder)]
