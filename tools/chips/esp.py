"""Espressif chips through esptool, which is GPL and therefore always a program of its own, never imported.

Each step starts esptool anew, so that a chip may be reset, replugged or exchanged in between. Writing is tried fast
first, then at the ROM's own speed, then slowly in every way (flash mode dio, no stub): bad cables and clone boards.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from . import ChipError
from .boards import Kind

Percent = Callable[[float], None]

FAST: Final = 460800
ROM_BAUD: Final = 115200
IDENTIFY_S: Final = 40.0  # seven attempts to connect take esptool 15 s
WRITE_S: Final = 900.0  # 4 MB at 115200 take six minutes
ERASE: Final = "--erase-all"
_ERASED: Final = "Flash memory erased successfully"
_PROGRESS: Final = re.compile(r"(\d+(?:\.\d+)?) ?%")
_CHIP: Final = re.compile(r"^Detecting chip type\.\.\. *(\S+)", re.MULTILINE)
_MAC: Final = re.compile(r"^MAC: +(\S+)", re.MULTILINE)
_SIZE: Final = re.compile(r"^Detected flash size: +(\d+)(KB|MB)", re.MULTILINE)
_FATAL: Final = re.compile(r"fatal error occurred: (.*)|^(.*(?:Errno|Error:).*)$", re.MULTILINE)
_NOT_RESET: Final = ("Chip was NOT reset", "not possible to reset the chip over a TCP socket")
# Of these another attempt at another speed heals nothing.
_HOPELESS: Final = (
    "Wrong chip argument",
    "not in range of supported",
    "Secure Boot",
    "Permission denied",
    "could not open port",
    "doesn't exist",
    "No such file or directory",
    "is busy",
)
# What esptool says → what a person can do about it.
_ADVICE: Final = (
    ("Permission denied", "you may not open the port: join its group (`ls -l PORT` names it), and log in again"),
    ("is busy", "end the program that has the port open, as a serial monitor"),
    ("could not open port", "plug the board in again; `boardlet flash` without a port lists what is there"),
    ("doesn't exist", "plug the board in again; `boardlet flash` without a port lists what is there"),
    ("Failed to connect", "hold BOOT, press RESET, let go of BOOT, and run the same command again"),
    ("Wrong boot mode", "hold BOOT, press RESET, let go of BOOT, and run the same command again"),
    ("MD5 of file", "what was written reads back otherwise: another cable or port; if it stays so, the flash is worn"),
    ("serial noise", "another cable or port; then run the same command again"),
)
_ADVISE_ELSE: Final = "check cable and power, and run the same command again"


@dataclass(frozen=True, slots=True)
class Found:
    """A chip that answered."""

    chip: str
    mac: str
    flash_bytes: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to write; `words` tells it to a person."""

    words: str
    baud: int
    options: tuple[str, ...] = ()
    stub: bool = True


ATTEMPTS: Final = (
    Attempt("at 460800 baud", FAST),
    Attempt("at 115200 baud", ROM_BAUD),
    Attempt("at 115200 baud, flash mode dio, without stub", ROM_BAUD, ("--flash-mode", "dio"), stub=False),
)


class _Failed(Exception):
    def __init__(self, said: str, output: str) -> None:
        super().__init__(said)
        self.output = output


def identify(port: str) -> Found:
    """Which chip is at the port; it is reset into its ROM, and out of it again. Raises ChipError."""
    try:
        said = _run(port, ["flash-id"], IDENTIFY_S)
    except _Failed as error:
        raise _told(port, error) from error
    chip, mac, size = _CHIP.search(said), _MAC.search(said), _SIZE.search(said)
    if chip is None:
        raise ChipError(f"{port}: esptool does not say which chip it is")
    factor = {"KB": 1 << 10, "MB": 1 << 20}
    return Found(chip[1], mac[1] if mac else "", int(size[1]) * factor[size[2]] if size else 0)


def write(port: str, kind: Kind, path: Path, erase: bool, percent: Percent, retry: Callable[[str, str], None]) -> bool:
    """Write the file at the kind's offset and have the chip verify it; whether it was reset and runs now.

    `retry` is told why an attempt failed and how the next one goes. Raises ChipError after the last.
    """
    return _write(port, kind.offset, path, [ERASE] if erase else [], ATTEMPTS, kind, percent, retry)


def restore(port: str, path: Path, percent: Percent, retry: Callable[[str, str], None]) -> bool:
    """Write a whole flash that was read, byte for byte, as `write` does; raises ChipError."""
    attempts = (*ATTEMPTS[:2], Attempt("at 115200 baud, without stub", ROM_BAUD, stub=False))
    return _write(port, 0, path, [], attempts, None, percent, retry)


def _write(
    port: str,
    offset: int,
    path: Path,
    options: Sequence[str],
    attempts: Sequence[Attempt],
    kind: Kind | None,
    percent: Percent,
    retry: Callable[[str, str], None],
) -> bool:
    erased = ERASE not in options
    for number, attempt in enumerate(attempts, 1):
        way = ["write-flash", *options, *attempt.options]
        try:
            if not attempt.stub:
                _leave_stub(port)
                way = [word for word in way if word != ERASE]
            said = _run(port, [*way, hex(offset), str(path)], WRITE_S, kind, attempt, percent)
        except _Failed as error:
            erased = erased or _ERASED in error.output
            if number == len(attempts) or any(words in str(error) for words in _HOPELESS):
                raise _told(port, error) from error
            if not (erased or attempts[number].stub):  # only the stub can, and what was to go would stay
                raise ChipError(f"{_told(port, error)}; without --erase it would be tried without stub too") from error
            retry(str(error), attempts[number].words)
            continue
        return not any(words in said for words in _NOT_RESET)
    raise AssertionError("the last attempt returns or raises")


def start(port: str) -> None:
    """Tell a chip in its ROM to run what is in its flash, for a port that has no line to reset it. Raises ChipError."""
    try:
        _leave_stub(port)
        _run(port, ["run"], IDENTIFY_S, stub=False)
    except _Failed as error:
        raise _told(port, error) from error


def _leave_stub(port: str) -> None:
    # Where no line resets the chip, the stub of the last command still runs.
    _run(port, ["--after", "no-reset", "read-mac"], IDENTIFY_S)


def erase(port: str) -> None:
    """Erase the whole flash; raises ChipError."""
    try:
        _run(port, ["erase-flash"], WRITE_S)
    except _Failed as error:
        raise _told(port, error) from error


def read(port: str, size: int, path: Path, percent: Percent) -> None:
    """Read the first `size` bytes of the flash into a file; raises ChipError."""
    try:
        _run(port, ["read-flash", "0", hex(size), str(path)], WRITE_S, attempt=ATTEMPTS[0], percent=percent)
    except _Failed as error:
        raise _told(port, error) from error


def _run(
    port: str,
    arguments: Sequence[str],
    timeout_s: float,
    kind: Kind | None = None,
    attempt: Attempt = ATTEMPTS[1],
    percent: Percent = lambda done: None,
    stub: bool = True,
) -> str:
    command = [sys.executable, "-u", "-m", "esptool", "--port", port, "--baud", str(attempt.baud)]
    command += ["--chip", kind.chip.lower().replace("-", "")] if kind else []
    command += [] if attempt.stub and stub else ["--no-stub"]
    with _program([*command, *arguments], timeout_s) as (program, timed_out):
        assert program.stdout is not None
        output = _read(program.stdout, percent)
        code = program.wait()
    if timed_out:
        raise _Failed(f"esptool was not done after {timeout_s:.0f} s", output)
    if code:
        found = _FATAL.findall(output)
        said = (found[-1][0] or found[-1][1]) if found else output.strip()[-300:]
        raise _Failed(said.strip() or f"esptool ended with code {code}", output)
    return output


@contextmanager
def _program(command: Sequence[str], timeout_s: float) -> Iterator[tuple[subprocess.Popen[bytes], list[bool]]]:
    # A Ctrl-C is for us to pass on: esptool is ended whatever way this ends.
    program = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    timed_out: list[bool] = []

    def end() -> None:
        timed_out.append(True)
        program.kill()

    timer = threading.Timer(timeout_s, end)
    timer.start()
    try:
        yield program, timed_out
    finally:
        timer.cancel()
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


def _read(stdout: IO[bytes], percent: Percent) -> str:
    output, line = "", ""
    while part := stdout.read1(4096):  # type: ignore[attr-defined]
        text = part.decode(errors="replace")
        output += text
        line = (line + text)[-400:]
        found = _PROGRESS.findall(line)
        if found:
            percent(min(float(found[-1]), 100.0))
            line = line[-12:]
    return output


def _told(port: str, error: _Failed) -> ChipError:
    said = str(error)
    advice = next((advice for words, advice in _ADVICE if words in said), _ADVISE_ELSE)
    return ChipError(f"{port}: {said.rstrip('.')}: {advice.replace('PORT', port)}")
