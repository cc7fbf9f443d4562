"""Where boards are plugged in: serial ports that this machine lists, boot volumes of chips that take UF2 files, and
STM32 chips that wait in DFU mode (usb:1-2, as Linux names the socket).

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
USB_VARIABLE: Final = "BOARDLET_USB"
INFO: Final = "INFO_UF2.TXT"
_MOUNTS: Final = ("/media/*", "/media/*/*", "/run/media/*/*", "/mnt/*", "/Volumes/*")
_BY_ID: Final = re.compile(r"^usb-(?P<name>.+?)_(?P<serial>[^_]+?)-if\d+(-port\d+)?$")
_POLL_S: Final = 0.1
_USB: Final = "/sys/bus/usb/devices"
_DFU: Final = ("0483", "df11")
_DFU_PREFIX: Final = "usb:"


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

    @property
    def is_dfu(self) -> bool:
        """Whether it is an STM32 in DFU mode."""
        return self.path.startswith(_DFU_PREFIX)


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


def dfu_devices() -> list[Port]:
    """The STM32 chips in DFU mode; Linux only."""
    found = []
    for folder in sorted(Path(os.environ.get(USB_VARIABLE) or _USB).glob("*")):
        if (_word(folder / "idVendor"), _word(folder / "idProduct")) == _DFU:
            found.append(Port(_DFU_PREFIX + folder.name, "STM32 in DFU mode", _word(folder / "serial"), folder.name))
    return found


def candidates() -> list[Port]:
    """Everything that may be a board."""
    return serial_ports() + volumes() + dfu_devices()


def choose(path: str | None, dfu: bool = False) -> Port:
    """The port that the user names, or the only candidate; raises ChipError that lists what there is.

    With `dfu` it may be a chip in DFU mode, to which only an image can be written.
    """
    found = _chosen(path)
    if found.is_dfu and not dfu:
        raise ChipError(f"{found} takes an image only: `boardlet flash {found.path} --name NAME`", NOT_FOUND)
    return found


def _chosen(path: str | None) -> Port:
    there = candidates()
    if path is not None:  # perhaps by another name, as a link in /dev/serial/by-id
        real = os.path.realpath(path)
        known = [port for port in there if port.path == path or os.path.realpath(port.path) == real]
        if not known and path.startswith(_DFU_PREFIX):
            raise ChipError(
                f"no STM32 is in DFU mode at {path}: connect BOOT0 to 3V3, press RESET, and see `boardlet doctor`",
                NOT_FOUND,
            )
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


def _word(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _link(path: Path) -> Port:
    found = _BY_ID.match(path.name)
    return Port(str(path), found["name"].replace("_", " "), found["serial"]) if found else Port(str(path))
