"""`boardlet backup` and `boardlet erase`: what is on a board into one file, and off the board.

A backup holds the board's key, so that only its owner may read the file. With MicroPython at the prompt it is a tar of
the files; `--chip` reads an Espressif chip's whole flash instead, whatever is on it.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import boardimage
import typer
from boardimage.agent import FOLDERS
from chips import ChipError, esp, ports

from boardlet_cli import firmware, romfs
from boardlet_cli.device import Device
from boardlet_cli.flash import CLAIM_FOLDER, CONFIG, configuration
from boardlet_cli.identity import ID_FORM
from boardlet_cli.options import PortArgument
from boardlet_cli.report import Report, for_user

STATE = ("state", "keys")  # the folders of boardlet.store
MAIN = "main.py"
Chip = Annotated[bool, typer.Option("--chip", help="The whole flash of an Espressif chip, by esptool.")]


def backup(
    port: PortArgument = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default: by the board's id and the date.")
    ] = None,
    chip: Chip = False,
) -> None:
    """Read what is on a board into a file, its key among it: a tar of the files on its flash, or the whole flash."""
    with for_user(False) as report, ExitStack() as stack:
        place = ports.choose(port)
        device = None if chip else firmware.prompt(stack, place)
        if device is not None:
            path = output or Path(f"{_name(device)}-{time.strftime('%Y%m%d-%H%M%S')}.tar")
            with _whole(path):
                count = _files(device, path, report)
            if romfs.held(device):
                report.note(
                    "the agent is in the board's ROMFS, which the tar does not hold: `boardlet flash` puts it there"
                )
            report.done({}, f"{path}: {count} files, readable by you only; it holds the board's key")
            return
        found = esp.identify(place.path)
        path = output or Path(f"{found.mac.replace(':', '')}-{time.strftime('%Y%m%d-%H%M%S')}.bin")
        report.step(f"reading {found.flash_bytes >> 20} MiB of the {found.chip}")
        with _whole(path):
            esp.read(place.path, found.flash_bytes, path, lambda percent: report.progress(percent / 100))
        report.done({}, f"{path}: the whole flash; `boardlet restore {path} {place.path}` puts it back")


def erase(
    port: PortArgument = None,
    chip: Chip = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take agent, identity and state off a board and leave MicroPython; with --chip, erase the whole flash."""
    place = ports.choose(port)
    what = "the whole flash, MicroPython too" if chip else "the agent, the board's identity and its state"
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("is needed where nobody can be asked", param_hint="--yes")
    if not yes and not typer.confirm(f"erase {what} at {place}?"):
        raise typer.Exit(1)
    with for_user(False) as report:
        if chip:
            report.step(f"erasing {place.path}")
            esp.erase(place.path)
            report.done({}, f"erased; `boardlet flash {place.path} --name NAME` makes a board of it again")
            return
        with Device(place.path) as device:
            gone = _remove(device)
        report.done({}, f"removed {gone} files; the Board object, if there is one, is still there")


def _name(device: Device) -> str:
    held = str(configuration(device).get("id"))
    return held if ID_FORM.fullmatch(held) else "board"  # a board does not say where a file goes


def _files(device: Device, path: Path, report: Report) -> int:
    names = device.walk()
    report.step(f"reading {len(names)} files")
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(names, 1):
            content = device.read(name)
            if content is None:
                continue
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            tar.addfile(entry, io.BytesIO(content))
            report.progress(number / len(names))
    return len(names)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    # Readable by its owner only; what was interrupted is no backup, and not in the way of the same command again.
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise ChipError(f"cannot write {path}: {error}: name another file with --output") from error
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def ours(path: str) -> bool:
    """Whether a board's file is Boardlet's, and goes with it."""
    folder, _, name = path.partition("/")
    return path in (CONFIG, MAIN) or (folder in (*FOLDERS, CLAIM_FOLDER, *STATE) and bool(name))


def _remove(device: Device) -> int:
    gone = [name for name in device.walk() if ours(name)]
    for name in sorted(gone, key=lambda name: name != MAIN):  # main.py first: half an agent is not started
        device.remove(name)
    if romfs.held(device) and not romfs.foreign(device):
        gone += [path.decode(errors="replace") for path in device.rom_files()]
        device.deploy(boardimage.romfs({}))
    device.forget_identity()
    return len(gone)
