"""`boardlet restore`: what `boardlet backup` saved, back onto a board, checked.

Of a tar only what differs is written. main.py is the first that goes and the last that comes, so that a board whose
restore was interrupted starts no agent that is half of one time and half of another; the same command finishes it.
"""

from __future__ import annotations

import json
import sys
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import typer
from boardimage.agent import FOLDERS
from chips import BAD_IMAGE, NOT_FOUND, ChipError, esp, ports
from chips.boards import of_chip
from chips.image import ESP_MAGIC, ImageFile, read
from chips.ports import Port

from boardlet_cli import firmware, romfs
from boardlet_cli.backup import MAIN, ours
from boardlet_cli.device import PARTIAL, Device
from boardlet_cli.flash import CLAIM_FOLDER, CONFIG, sha256
from boardlet_cli.options import AsJson, PortArgument
from boardlet_cli.order import FlashFailed
from boardlet_cli.report import Report, for_user

SHORT: Final = "Put a backup back onto a board."
EXAMPLES: Final = (
    "Examples:\n\n\b\n"
    "  boardlet restore k7m2q9xa-20260401-093000.tar /dev/ttyUSB0 --dry-run\n"
    "  boardlet restore 240ac4123456-20260401-093000.bin /dev/ttyUSB0 --yes\n\n"
    "Exit codes: 0 it is on the board (or the dry run is done), 1 a step failed, or you said no, 2 wrong usage, 4 no "
    "board or several, 5 a backup that is damaged or does not fit, 6 the flash could not be written, 130 interrupted: "
    "run it again."
)
_MAGIC: Final = (257, b"ustar")  # of a tar, and where in it
_END: Final = bytes(1024)  # two empty blocks: without them a tar was cut
_MAX_BYTES: Final = 16 << 20  # of all files; more than the flash of any board


@dataclass(frozen=True, slots=True)
class _Plan:
    write: dict[str, bytes]
    kept: int
    remove: tuple[str, ...]


def restore(
    backup: Annotated[
        Path, typer.Argument(help="A file that `boardlet backup` wrote: .tar, or .bin.", exists=True, dir_okay=False)
    ],
    port: PortArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a board what it was at its backup: files, identity and state, or an Espressif chip's whole flash.

    Files that the backup does not have stay if they are not Boardlet's. A board that is another than the one of the
    backup is refused: two boards with one id throw each other off the broker.
    """
    if not (yes or dry_run or (sys.stdin.isatty() and not as_json)):
        raise typer.BadParameter("is needed where nobody can be asked", param_hint="--yes")
    with for_user(as_json) as report:
        saved = read(backup)
        place = ports.choose(port)
        if saved.content[_MAGIC[0] :].startswith(_MAGIC[1]):
            _files(_unpacked(saved), place, dry_run, yes, report)
        else:
            _flash(saved, place, dry_run, yes, report)


def _files(files: dict[str, bytes], place: Port, dry_run: bool, yes: bool, report: Report) -> None:
    with ExitStack() as stack:
        device = firmware.prompt(stack, place)
        if device is None:
            raise ChipError(
                f"no MicroPython answers at {place.path}: `boardlet flash {place.path} --name NAME` with the name of "
                "its Board puts it there, then restore again",
                NOT_FOUND,
            )
        info = device.info()
        plan = _compare(files, device)
        _same_board(files, device)
        _has_agent(files, device)
        size = sum(map(len, plan.write.values()))
        if size > info.free_bytes:
            raise FlashFailed(
                f"{place.path} has {info.free_bytes >> 10} KiB free, {size >> 10} are needed: remove files from it "
                "with mpremote"
            )
        board = _identity(files.get(CONFIG)).get("id")
        facts = {"port": place.path, "boardID": board, "write": sorted(plan.write), "kept": plan.kept}
        facts |= {"remove": list(plan.remove), "bytes": size}
        report.plan(
            facts,
            [
                f"{place}: {len(plan.write)} files to write ({size} bytes), {plan.kept} are right, {len(plan.remove)} "
                f"of Boardlet's to remove; {f'it is the board {board}' if board else 'it has no id'}"
            ],
        )
        if dry_run or not (plan.write or plan.remove):
            report.done(facts, "dry run: nothing was changed" if dry_run else "it is as it was at its backup")
            return
        _ask(yes, f"put the backup back onto {place}?")
        _write(plan, files, device, report)
        report.done(facts, f"restored, each file checked by its SHA-256; `boardlet info {place.path}` looks at it")


def _compare(files: dict[str, bytes], device: Device) -> _Plan:
    there = device.walk()
    write = {path: content for path, content in files.items() if device.sha256(path) != sha256(content)}
    left = {path + PARTIAL for path in files} - files.keys()
    remove = tuple(path for path in there if path in left or (ours(path) and path not in files))
    return _Plan(write, len(files) - len(write), remove)


def _same_board(files: dict[str, bytes], device: Device) -> None:
    held, saved = _identity(device.read(CONFIG)).get("id"), _identity(files.get(CONFIG)).get("id")
    if held and held != saved:
        raise FlashFailed(
            f"{device.port} is the board {held}, and the backup is of {saved or 'one without an id'}: name its port, "
            f"or `boardlet erase {device.port}` first if this one is to take its place"
        )


def _has_agent(files: dict[str, bytes], device: Device) -> None:
    # main.py of a board whose agent was in ROMFS, which is in no tar.
    code = any(path.partition("/")[0] in FOLDERS for path in files)
    if MAIN in files and not code and not romfs.held(device) and not device.frozen_agent():
        raise FlashFailed(
            f"the backup is of a board with its agent in ROMFS, and {device.port} has none there: `boardlet flash "
            f"{device.port} --name NAME` with the name of its Board puts it there, then restore again"
        )


def _identity(text: bytes | None) -> dict[str, Any]:
    # A configuration that is damaged is no reason not to put a good one in its place.
    try:
        held = json.loads(text or b"{}")
    except ValueError:
        held = None
    return held if isinstance(held, dict) else {}


def _write(plan: _Plan, files: dict[str, bytes], device: Device, report: Report) -> None:
    report.step(f"writing {len(plan.write)} files")
    device.remove(MAIN)
    for path in plan.remove:
        device.remove(path)
    for folder in (*FOLDERS, CLAIM_FOLDER):
        device.remove_folder(folder)  # one that is empty would hide an agent that is in the image
    if CONFIG in plan.write or CONFIG in plan.remove:
        device.forget_identity()
    changed = {**plan.write, **({MAIN: files[MAIN]} if MAIN in files else {})}
    total, done = sum(map(len, changed.values())) or 1, 0
    for path in sorted(changed, key=lambda path: (path == MAIN, path == CONFIG, path)):
        device.put(path, changed[path], lambda n, done=done: report.progress((done + n) / total))  # type: ignore[misc]
        done += len(changed[path])


def _flash(saved: ImageFile, place: Port, dry_run: bool, yes: bool, report: Report) -> None:
    if place.is_volume:
        raise ChipError(f"{saved.name} is no tar of a board's files, which is what a backup of a Pico is", BAD_IMAGE)
    found = esp.identify(place.path)
    size = len(saved.content)
    if size != found.flash_bytes:
        raise ChipError(
            f"{saved.name} has {size} bytes, and the flash of the {found.chip} at {place.path} {found.flash_bytes}: it "
            "is no whole backup of such a chip, nor a whole tar",
            BAD_IMAGE,
        )
    kind = of_chip(found.chip)
    if kind is not None and saved.content[kind.offset] == ESP_MAGIC:
        ImageFile(saved.name, saved.path, saved.content[kind.offset :]).check_chip(kind)  # however old
    facts = {"port": place.path, "chip": found.chip, "mac": found.mac, "bytes": size, "sha256": saved.sha256}
    words = f"{place}: {found.chip} {found.mac}, its whole flash of {size >> 20} MiB is overwritten"
    report.plan(facts, [words, f"sha256 {saved.sha256}"])
    if dry_run:
        report.done(facts, "dry run: nothing was changed")
        return
    _ask(yes, f"overwrite the whole flash at {place}?")
    report.step(f"writing {saved.name}")
    told = firmware.retries(report)
    runs = esp.restore(place.path, saved.path, lambda done: report.progress(done / 100), told)
    firmware.start_after(place, runs, report)
    report.done(facts, f"restored and verified; `boardlet info {place.path}` looks at it")


def _ask(yes: bool, what: str) -> None:
    if not yes and not typer.confirm(what):
        raise typer.Exit(1)


def _unpacked(saved: ImageFile) -> dict[str, bytes]:
    """The files of a tar by path; raises ChipError for what `boardlet backup` does not write."""
    if not saved.content.endswith(_END):
        raise ChipError(f"{saved.name} is cut: it does not end as a tar does. Take another backup", BAD_IMAGE)
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(saved.path) as tar:
            for entry in tar:
                path = PurePosixPath(entry.name)
                if entry.isdir():
                    continue
                if not entry.isfile() or path.is_absolute() or ".." in path.parts or str(path) in files:
                    raise ChipError(
                        f"{saved.name} holds {entry.name!r}, which no board's backup does: nothing was written",
                        BAD_IMAGE,
                    )
                if sum(map(len, files.values())) + entry.size > _MAX_BYTES:
                    raise ChipError(f"{saved.name} holds more than any board's flash", BAD_IMAGE)
                part = tar.extractfile(entry)
                assert part is not None
                files[str(path)] = part.read()
    except (tarfile.TarError, OSError, UnicodeError, ValueError, EOFError) as error:
        raise ChipError(f"{saved.name} is damaged ({error}): take another backup", BAD_IMAGE) from error
    return files
