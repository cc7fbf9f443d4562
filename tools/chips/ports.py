"""Where boards are plugged in: serial ports that this machine lists, and boot volumes of chips that take UF2 files.

With BOARDLET_PORTS set to a folder, its links are the ports instead, as in /dev/serial/by-id: for containers, which see
the devices but not the bus, and for udev rules of one's own.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from serial.tools import list_ports

from . import NOT_FOUND, ChipError

VARIABLE: Final = "BOARDLET_PORTS"
VOLUMES_VARIABLE: Final = "BOARDLET_VOLUMES"
INFO: Final = "INFO_UF2.TXT"
_MOUNTS: Final = ("/media/*", "/media/*/*", "/run/media/*/*", "/mnt/*", "/Volumes/*")
_BY_ID: Final = re.compile(r"^usb-(?P<name>.+?)_(?P<serial>[^_]+?)-if\d+(-port\d+)?$")
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Port:
    """A place where a board is plugged in."""

    path: str
    name: str = ""
    """What the device calls itself."""
    serial: str = ""
    """Of the device, "" where it has none or shares one with its kind."""
    location: str = ""
    """The socket that it is plugged into, "" where that is not known."""

    def __str__(self) -> str:
        return f"{self.path} ({self.name})" if self.name else self.path

    @property
    def is_volume(self) -> bool:
        """Whether it is the boot volume of a chip that takes UF2 files."""
        return Path(self.path).is_dir()


def serial_ports() -> list[Port]:
    """The serial ports of devices on a bus; built-in ones, which are always there, are left out."""
    folder = os.environ.get(VARIABLE)
    if folder:
        return [_link(path) for path in sorted(Path(folder).glob("[!.]*"))]
    return [
        Port(port.device, port.description or "", port.serial_number or "", port.location or "")
        for port in sorted(list_ports.comports())
        if port.vid is not None
    ]


def volumes() -> list[Port]:
    """The boot volumes that are mounted."""
    patterns = os.environ.get(VOLUMES_VARIABLE, "").split(os.pathsep)
    found = [
        path for pattern in (patterns if any(patterns) else _MOUNTS) for path in Path("/").glob(pattern.lstrip("/"))
    ]
    return [Port(str(path), "UF2 boot volume") for path in sorted(found) if (path / INFO).is_file()]


def candidates() -> list[Port]:
    """Everything that may be a board."""
    return serial_ports() + volumes()


def choose(path: str | None) -> Port:
    """The port that the user names, or the only candidate; raises ChipError that lists what there is."""
    there = candidates()
    if path is not None:  # perhaps by another name, as a link in /dev/serial/by-id
        real = os.path.realpath(path)
        known = [port for port in there if port.path == path or os.path.realpath(port.path) == real]
        return replace(known[0], path=path) if known else Port(path)
    if len(there) == 1:
        return there[0]
    if not there:
        raise ChipError(
            "there is no board: plug one in (a Pico while BOOTSEL is held); `boardlet doctor` says more", NOT_FOUND
        )
    listed = "\n".join(f"  {port}" for port in there)
    raise ChipError(f"there are {len(there)} boards; name the port of one:\n{listed}", NOT_FOUND)


def reappeared(before: Iterable[Port], old: Port, seconds: float) -> list[Port]:
    """Where the board may be after it was reset, likeliest first; waits up to `seconds` until there is any.

    A board behind a bridge is where it was. One with USB of its own left the bus and comes back, perhaps under another
    path: as a port that was not there before, with its serial number or in the same socket if these are known. What is
    found may be about to go; who cannot reach it asks again.
    """
    known = {port.path for port in before}
    nameless = not old.serial and not old.location
    deadline = time.monotonic() + seconds
    while True:
        new = [port for port in serial_ports() if port.path not in known]
        sure = [port for port in new if _same(port, old)]
        same = [old] if "://" in old.path or (Path(old.path).exists() and not old.is_volume) else []
        # Nothing tells whose a new port is where nothing was known of the old one, and two are too many to guess.
        found = sure or same or (new if nameless and len(new) == 1 else [])
        if found or time.monotonic() > deadline:
            return found
        time.sleep(_POLL_S)


def _same(port: Port, old: Port) -> bool:
    plain = [re.sub(r"[^0-9a-z]", "", each.serial.lower()) for each in (port, old)]
    return bool(plain[0] and plain[0] == plain[1]) or bool(port.location and port.location == old.location)


def _link(path: Path) -> Port:
    found = _BY_ID.match(path.name)
    return Port(str(path), found["name"].replace("_", " "), found["serial"]) if found else Port(str(path))
