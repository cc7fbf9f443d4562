"""MicroPython on a chip: what runs there now, which image it is to get, and getting it there until its prompt answers.

A chip is asked at MicroPython's prompt first and by esptool only where there is none, because the latter resets it. A
board that answers and has a bootloader of its own to go to is sent there; others are reset by the lines of their port.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chips import NOT_FOUND, OWN_STEP, ChipError, dfu, esp, images, ports, uf2
from chips.boards import Kind, kinds, of_chip, of_machine
from chips.image import ImageFile
from chips.ports import Port

from boardlet_cli.device import CONNECT_S, Device, DeviceError, Info, NoPrompt, TooOld
from boardlet_cli.report import Report

KNOCK_VARIABLE: Final = "BOARDLET_KNOCK_S"
KNOCK_S: Final = 2.5  # a prompt answers at once; a board that the opening of its port reset, at the second try
FIRST_BOOT_S: Final = 60.0  # a chip makes its file system at its first boot
LEAVE_S: Final = 3.0  # a board that resets into its bootloader
_NEVER_ESP: Final = ("Pico", "RP2", "STM", "Pyboard")  # in names of ports; esptool would knock for 15 s


@dataclass(frozen=True, slots=True)
class Seen:
    """What is at a port."""

    port: Port
    kind: Kind | None
    """None for a board with MicroPython whose kind is not known, and need not be."""
    info: Info | None
    """Of a MicroPython that can run the agent, None where there is no such."""
    words: str
    """For a person."""


def knock_s() -> float:
    """How long one of the two knocks at a port lasts before it is taken for a blank chip; raises ChipError."""
    said = os.environ.get(KNOCK_VARIABLE) or str(KNOCK_S)
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ChipError(f"{KNOCK_VARIABLE} is {said!r}: set it to a number of seconds above 0, as {KNOCK_S}", code=2)
    return seconds


def prompt(stack: ExitStack, port: Port) -> Device | None:
    """The board at its MicroPython prompt, None where there is none; raises DeviceError for a port that is none.

    Raises ChipError for a patience that is none.
    """
    if port.is_volume or port.is_dfu:
        return None
    sure = any(word in port.name for word in ("MicroPython", *_NEVER_ESP))
    try:
        return stack.enter_context(Device(port.path, CONNECT_S if sure else knock_s()))
    except NoPrompt:
        if sure:
            raise
        return None


def look(port: Port, device: Device | None) -> Seen:
    """What is there; raises ChipError where nothing answers, or a chip that is not known."""
    if port.is_volume:
        kind = uf2.kind_of(Path(port.path))
        return Seen(port, kind, None, f"{kind.name} with BOOTSEL held")
    if port.is_dfu:
        return Seen(port, next(kind for kind in kinds().values() if kind.method == "dfu"), None, port.name)
    if device is None:
        return _by_esptool(port, "no MicroPython")
    try:
        info = device.info()
    except TooOld as error:
        return Seen(port, of_machine(*device.machine()), None, str(error))
    version = ".".join(map(str, info.version))
    words = f"{info.machine or info.platform}, MicroPython {version}, {info.free_bytes // 1024} KiB free"
    return Seen(port, of_machine(info.platform, info.machine), info, words)


def _by_esptool(port: Port, what_runs: str) -> Seen:
    try:
        found = esp.identify(port.path)
    except ChipError as error:
        raise ChipError(
            f"neither MicroPython nor an Espressif chip answers: {error}. A Pico is plugged in with BOOTSEL held; an "
            "STM32 with BOOT0 at 3V3, then it has no serial port, and `boardlet flash` without one finds it",
            NOT_FOUND,
        ) from error
    kind = of_chip(found.chip)
    if kind is None:
        raise ChipError(f"{port.path} is an {found.chip}, and firmware/boards has no folder for it", NOT_FOUND)
    size = f"{found.flash_bytes >> 20} MiB flash, " if found.flash_bytes else ""
    return Seen(port, kind, None, f"{found.chip} {found.mac}, {size}{what_runs}")


def choose(seen: Seen, wanted: str | None, erase: bool, report: Report) -> ImageFile | None:
    """The image that it is to get, None if it needs none; raises ChipError."""
    if seen.info is not None and not wanted and not erase:
        return None
    if seen.kind is None:
        return None  # the chip itself must be asked first
    if erase and seen.kind.method != "esptool":
        raise ChipError(f"--erase is for Espressif chips: `boardlet erase {seen.port.path}` takes files off a board")
    found = images.find(wanted, seen.kind, lambda have, total: report.progress(have / total if total else 0.0))
    if seen.kind.method == "dfu":
        raise ChipError(dfu.steps(seen.kind, found, seen.port), OWN_STEP)
    return found


def enter_bootloader(seen: Seen, device: Device, stack: ExitStack) -> Seen:
    """Have a board that runs MicroPython wait for an image, and see again what it is; raises ChipError, DeviceError."""
    before, drives = ports.serial_ports(), ports.volumes()
    went = device.bootloader()
    stack.close()
    if seen.kind is not None and seen.kind.method == "uf2" and went:
        drive = uf2.appeared(drives, seen.kind)
        return Seen(Port(str(drive), serial=seen.port.serial), seen.kind, None, seen.words)
    time.sleep(LEAVE_S if went else 0)
    found = ports.reappeared(before, seen.port, FIRST_BOOT_S)
    return _by_esptool(found[0] if found else seen.port, f"was {seen.words}")


def let_run(seen: Seen) -> None:
    """Let a chip that was sent to its bootloader for nothing run again what it ran."""
    if seen.kind is not None and seen.kind.method == "esptool":
        with suppress(ChipError):  # what is to be told is why it was for nothing
            esp.start(seen.port.path)


def install(seen: Seen, image: ImageFile, erase: bool, stack: ExitStack, report: Report) -> Device:
    """Put the image on a chip that waits for it, and return the board at its prompt; raises ChipError."""
    assert seen.kind is not None
    before = ports.serial_ports()
    report.step(f"writing {image.name} to the {seen.kind.chip} at {seen.port.path}")
    if seen.kind.method == "uf2":
        uf2.write(Path(seen.port.path), image.path, lambda percent: report.progress(percent / 100))
    else:
        _write_esp(seen, seen.kind, image, erase, report)
    report.step("image written and verified; waiting for MicroPython")
    return _attach(stack, before, seen.port, report.note)


def _write_esp(seen: Seen, kind: Kind, image: ImageFile, erase: bool, report: Report) -> None:
    told = retries(report)
    runs = esp.write(seen.port.path, kind, image.path, erase, lambda done: report.progress(done / 100), told)
    start_after(seen.port, runs, report)


def retries(report: Report) -> Callable[[str, str], None]:
    """Tells why an attempt failed, and how the next one goes."""
    return lambda why, how: report.note(f"{why.rstrip('.')}: trying again {how}")


def start_after(port: Port, runs: bool, report: Report) -> None:
    """Start a chip that was written, where no line of its port has done so; raises ChipError."""
    if not runs:
        esp.start(port.path)
        report.note(f"{port.path} has no line to reset the chip: press RESET if it does not start by itself")


def _attach(stack: ExitStack, before: list[Port], old: Port, note: Callable[[str], None]) -> Device:
    deadline = time.monotonic() + FIRST_BOOT_S
    why = "no port appeared"
    while (left := deadline - time.monotonic()) > 0:
        for port in ports.reappeared(before, old, left):
            try:
                device = stack.enter_context(Device(port.path, KNOCK_S))
            except DeviceError as error:  # it boots still, or this port is about to go
                why = str(error)
                time.sleep(0.2)
                continue
            if port.path != old.path:
                note(f"the board is now at {port.path}")
            return device
    raise ChipError(
        f"the image is written, but MicroPython did not answer within {FIRST_BOOT_S:.0f} s ({why}): press RESET, and "
        "run the same command again without --image and --erase"
    )
