"""A board at a serial port, through mpremote's library: the only module that speaks to a board through it.

mpremote's signatures held from 1.26 to 1.29, but they are no promise; whatever changes is mended here. USB copies can
corrupt silently, so a file is written under a temporary name, hashed by the board, and renamed only if it is right.
A board that was interrupted is reset at the end, whatever happened in between: looking at a board does not stop it.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

from mpremote.commands import CommandError, do_romfs
from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport
from serial import SerialException

from boardlet_cli import onboard

BAUD: Final = 115200
CONNECT_S: Final = 6
TRIES: Final = 2  # a Ctrl-C that meets a board which has not started its interpreter yet is lost
SILENCE_S: Final = 10  # mpremote's own limit within one answer; longer than any pause of a board at work
CHUNK_BYTES: Final = 1024
READ_BYTES: Final = 256
PARTIAL: Final = ".new"  # after the name of a file that is still being written
MPY_VERSION: Final = 6  # of the .mpy files that mpy-cross 1.29 makes; MicroPython 1.19 and newer load them
OLDEST: Final = (1, 25)
FIND_PORT: Final = "`ls /dev/ttyUSB* /dev/ttyACM*` finds it"
_OFFSET: Final = re.compile(r"Writing at offset (\d+)")

# What mpremote lets through when a port falls silent: half an answer is no struct, a lost device no open file.
_GONE: Final = (SerialException, OSError, struct.error, UnicodeDecodeError, termios.error)


class DeviceError(Exception):
    """The board at the port does not do what is needed; the message says the cause and the next step."""


class NoPrompt(DeviceError):
    """Nothing at the port answers as MicroPython does."""


class TooOld(DeviceError):
    """What answers is no MicroPython, or one that cannot run the agent."""


@dataclass(frozen=True, slots=True)
class Info:
    """What a board says of itself; `mpy` as sys.implementation._mpy has it."""

    version: tuple[int, ...]
    platform: str
    machine: str
    mpy: int
    free_bytes: int


class Device:
    """A board in its raw REPL; a context manager. Whatever main.py it ran is interrupted."""

    def __init__(self, port: str, connect_s: float = CONNECT_S) -> None:
        self.port = port
        self._connect_s = connect_s
        self._serial: SerialTransport
        self._was_reset = False
        self._silent = False

    def __enter__(self) -> Device:
        is_url = "://" in self.port  # as rfc2217://, a port that another machine serves
        if not is_url and not Path(self.port).exists():
            raise DeviceError(f"there is no port {self.port}: plug the board in, {FIND_PORT}")
        if not is_url and not os.access(self.port, os.R_OK | os.W_OK):
            raise DeviceError(f"{self.port} may not be opened: join its group (`ls -l {self.port}`), and log in again")
        try:
            self._serial = SerialTransport(self.port, BAUD, exclusive=True, timeout=min(self._connect_s, CONNECT_S))
        except (TransportError, *_GONE) as error:
            if not _is_serial(self.port):
                raise DeviceError(f"{self.port} is no serial port: {FIND_PORT}") from error
            raise DeviceError(
                f"{self.port} is busy ({error}): end the program that uses it, as a serial monitor or another flash"
            ) from error
        try:
            if "://" not in self.port:  # a port that another machine serves has none
                self._serial.serial.write_timeout = SILENCE_S
            self._prompt()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._was_reset:
            with suppress(DeviceError):  # what went wrong before is what the user is to read
                self.reset()
        self._close()

    def _prompt(self) -> None:
        for left in reversed(range(TRIES)):
            try:
                with redirect_stdout(StringIO()):  # mpremote prints what it read
                    self._serial.enter_raw_repl(soft_reset=True, timeout_overall=self._connect_s)
                return
            except (TransportError, *_GONE) as error:
                if not left:
                    raise NoPrompt(
                        f"{self.port} is no MicroPython prompt ({error}): does the board run MicroPython?"
                    ) from error

    def _close(self) -> None:
        with suppress(*_GONE):  # a board that was unplugged
            self._serial.close()

    def info(self) -> Info:
        """What it is; raises DeviceError for a MicroPython that is too old."""
        name, version, platform, machine, mpy, free = self._value(onboard.INFO)
        if name != "micropython" or tuple(version[:2]) < OLDEST:
            have = f"{name} {'.'.join(map(str, version))}"
            raise TooOld(f"{self.port} runs {have}; flash MicroPython 1.25 or newer first")
        if mpy & 0xFF != MPY_VERSION:
            raise TooOld(f"{self.port} loads .mpy version {mpy & 0xFF}, not {MPY_VERSION}: flash a newer MicroPython")
        return Info(tuple(version), platform, machine, mpy, free)

    def machine(self) -> tuple[str, str]:
        """sys.platform and the machine's name, of any MicroPython."""
        _, _, platform, machine, *_ = self._value(onboard.INFO)
        return platform, machine

    def frozen_agent(self) -> str | None:
        """The version of the agent in the board's image, None where there is none."""
        version = self._value(onboard.FROZEN)
        return None if version is None else str(version)

    def tls(self) -> tuple[bool, bool]:
        """Whether its TLS checks certificates, and whether it knows shared keys."""
        certificates, keys = self._value(onboard.TLS)
        return bool(certificates), bool(keys)

    def sha256(self, path: str) -> str:
        """Of a file on the board, "" where there is none."""
        return self._run(onboard.HASH.format(path=path)).strip()

    def read(self, path: str) -> bytes | None:
        """A file of the board, None where there is none; raises DeviceError if it is not what the board hashed."""
        digest = self.sha256(path)
        if not digest:
            return None
        content = b""
        self._run(f"f = open({path!r}, 'rb')")
        while part := self._value(f"print(f.read({READ_BYTES}))"):
            content += part
        self._run("f.close()")
        if hashlib.sha256(content).hexdigest() != digest:
            raise DeviceError(f"{path} came damaged from {self.port}: try another cable or port")
        return content

    def put(self, path: str, content: bytes, progress: Callable[[int], None] = lambda n: None) -> None:
        """Write a file whole or not at all; raises DeviceError if what arrived is not what was sent."""
        new = path + PARTIAL
        if "/" in path:
            self._run(onboard.MAKE.format(folder=path.rsplit("/", 1)[0]))
        try:
            self._write(new, content, progress)
            if self.sha256(new) != hashlib.sha256(content).hexdigest():
                raise DeviceError(f"{path} arrived damaged at {self.port}: try another cable or port")
            self._run(onboard.RENAME.format(new=new, path=path))
        except DeviceError:
            with suppress(DeviceError):  # a board that is gone keeps it; the next flash removes it
                self.remove(new)
            raise

    def _write(self, path: str, content: bytes, progress: Callable[[int], None]) -> None:
        self._run(f"f = open({path!r}, 'wb')")
        for start in range(0, len(content), CHUNK_BYTES):
            self._run(f"f.write({content[start : start + CHUNK_BYTES]!r})")
            progress(min(start + CHUNK_BYTES, len(content)))
        self._run("f.close()")

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        self._run(onboard.REMOVE.format(path=path))

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder if it is there."""
        self._run(onboard.REMOVE_FOLDER.format(path=path))

    def has(self, path: str) -> bool:
        """Whether there is a file or folder of this name, be it empty."""
        return bool(self._value(onboard.HAS.format(path=path)))

    def rom_bytes(self) -> int:
        """The size of its ROMFS partition, 0 where it has none."""
        return int(self._value(onboard.ROM_BYTES))

    def rom_files(self) -> list[bytes]:
        """Every file in its ROMFS, by its path there; none where there is none, or none that can be read."""
        return [bytes(path) for path in self._value(onboard.ROM_FILES)]

    def rom_found(self, name: str) -> bool:
        """Whether its ROMFS is mounted and searched for modules, and has this folder."""
        return bool(self._value(onboard.ROM_FOUND.format(name=name)))

    def rom_sha256(self, length: int) -> str:
        """Of the first bytes of its ROMFS partition."""
        return self._run(onboard.ROM_HASH.format(length=length)).strip()

    def deploy(self, image: bytes, progress: Callable[[int], None] = lambda n: None) -> None:
        """Write an image to its ROMFS partition and mount it as at a start; raises DeviceError if it is not there then.

        What the partition held before is gone with the first byte.
        """
        with TemporaryDirectory(prefix="boardlet-romfs-") as folder, redirect_stdout(_Offsets(progress)):
            path = Path(folder, "agent.romfs")
            path.write_bytes(image)
            state = SimpleNamespace(transport=self._serial, ensure_raw_repl=lambda: None, did_action=lambda: None)
            words = SimpleNamespace(command=["deploy"], path=str(path), partition=0, mpy=False)
            try:
                self._guard(lambda: do_romfs(state, words))
            except (CommandError, SystemExit) as error:
                raise DeviceError(f"mpremote does not write to the ROMFS of {self.port}: {error}") from error
        # mpremote does not ask whether a write went well.
        if self.rom_sha256(len(image)) != hashlib.sha256(image).hexdigest():
            raise DeviceError(
                f"the ROMFS of {self.port} does not hold what was written to it: flash again; if it stays so, that "
                "part of the flash is worn out or locked, and --no-romfs does without it"
            )
        self._prompt()

    def walk(self) -> list[str]:
        """Every file of the board, by its path."""
        return sorted(self._value(onboard.WALK))

    def forget_identity(self) -> None:
        """Remove the copy of the configuration that is outside the file system, where the board has such a place."""
        self._run(onboard.FORGET)

    def health(self) -> dict[str, Any]:
        """Free heap, and what the agent has written down: boot record (boardlet.health), last crash; or `error`."""
        return dict(self._value(onboard.HEALTH))

    def files(self, folder: str) -> list[str]:
        """Names in a folder, none where there is no such folder."""
        return list(self._value(onboard.LIST.format(folder=folder)))

    def reset(self) -> None:
        """Reset the board; it boots main.py. It has no prompt after that."""
        self._was_reset = True
        self._guard(lambda: self._serial.exec_raw_no_follow(onboard.LEAVE.format(how="reset")))

    def bootloader(self) -> bool:
        """Have the board leave MicroPython for its bootloader; False where it has no such call."""
        if not self._value("import machine; print(hasattr(machine, 'bootloader'))"):
            return False
        self._was_reset = True
        self._guard(lambda: self._serial.exec_raw_no_follow(onboard.LEAVE.format(how="bootloader")))
        return True

    def _run(self, code: str) -> str:
        return bytes(self._guard(lambda: self._serial.exec(code))).decode(errors="replace")

    def _value(self, code: str) -> Any:
        said = self._run(code)
        try:
            return ast.literal_eval(said.strip())
        except (ValueError, SyntaxError) as error:
            raise DeviceError(
                f"{self.port}: the board says {said.strip()[:80]!r} where a value should be: does its boot.py print?"
            ) from error

    def _guard(self, call: Callable[[], Any]) -> Any:
        if self._silent:
            raise DeviceError(f"{self.port} does not answer any more: check cable and power")
        try:
            return call()
        except TransportExecError as error:
            said = str(error.error_output).strip().splitlines()
            last = said[-1] if said else str(error)
            raise DeviceError(f"{self.port}: the board says {last}") from error
        except (TransportError, *_GONE) as error:
            self._silent = True
            raise DeviceError(f"{self.port} does not answer any more ({error}): check cable and power") from error


class _Offsets(StringIO):
    """Standard output while mpremote deploys: what it prints says how many bytes have been written until now."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        super().__init__()
        self._progress = progress
        self._outside = sys.stdout
        self.rich_proxied_file = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # where a bar is drawn

    def write(self, text: str) -> int:
        if found := _OFFSET.search(text):
            with redirect_stdout(self._outside):
                self._progress(int(found[1]))
        return len(text)


def _is_serial(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return Path(path).is_char_device()
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)
