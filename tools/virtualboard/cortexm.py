"""A board without an operating system: MicroPython on a Cortex-M3 that QEMU emulates, at its serial line.

The processor, its 32 bits, its 140 KB of heap and littlefs are a board's; there is no network. Built from Debian's
source package with MicroPython's own port for QEMU, and over it the files in qemu/: a clock, Ctrl-C, boot scripts, a
partition for ROMFS, and a reset that keeps the files. The agent can be frozen in.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final

from boardimage import simple
from boardimage.agent import FIRMWARE
from provision import cache, debs
from provision.missing import Missing
from provision.progress import Progress

from .build32 import PACKAGE, SUITE, VERSION

BOARD: Final = "MPS2_AN385"
OVERLAY: Final = Path(__file__).with_name("qemu")
BOOT: Final = FIRMWARE / "boards/qemu/_boot.py"
TOOLS: Final = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi, libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "gcc": "gcc",
    "make": "make",
}
_BUILD_S: Final = 40.0
_TIMEOUT_S: Final = 600.0
_PTY: Final = re.compile(r"(/dev/pts/\d+)")


def firmware(progress: Progress | None = None, *, frozen: bool = False) -> Path:
    """The image out of the cache, built first if need be, with the agent frozen in; raises `Missing`."""
    for tool, package in TOOLS.items():
        if which(tool) is None:
            raise Missing(tool, f"install the packages {package}")
    folder = cache.artifact(
        "micropython-cortexm",
        f"{PACKAGE}-{_digest(frozen)}",
        lambda into: _build(into, frozen),
        progress=progress,
        what=f"building MicroPython {VERSION} for a Cortex-M3{', with the agent frozen' if frozen else ''}",
        usual_s=_BUILD_S,
    )
    return folder / "firmware.elf"


class CortexMBoard:
    """A board that runs this image; its flash is blank at power-on. A context manager; `port` is its serial line."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self.port = ""

    def __enter__(self) -> CortexMBoard:
        command = ["qemu-system-arm", "-machine", "mps2-an385", "-nographic", "-monitor", "none", "-semihosting"]
        command = ["setpriv", "--pdeathsig", "KILL", "--", *command, "-serial", "pty", "-kernel", str(self._image)]
        self._qemu = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._qemu.stdout is not None
        said = ""
        for line in self._qemu.stdout:
            said += line
            if found := _PTY.search(line):
                self.port = found[1]
                return self
        self.__exit__(None, None, None)
        raise Missing("a serial line of QEMU", f"it says: {said.strip()[-300:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._qemu.kill()
        self._qemu.wait()
        if self._qemu.stdout is not None:
            self._qemu.stdout.close()


def _digest(frozen: bool) -> str:
    seen = hashlib.sha256(b"frozen" if frozen else b"")
    for path in [*sorted(OVERLAY.iterdir()), BOOT, *(sorted(FIRMWARE.rglob("*.py")) if frozen else [])]:
        seen.update(path.read_bytes())
    return seen.hexdigest()[:12]


def _build(into: Path, frozen: bool) -> None:
    source = debs.fetch_source("micropython", PACKAGE, SUITE)
    with TemporaryDirectory(prefix="boardlet-cortexm-") as name:
        folder = Path(name)
        port = _port(source, folder / "tree")
        manifest = folder / "manifest.py"
        agent = f"include({str(FIRMWARE / 'manifest.py')!r}, umqtt={str(simple().parents[1])!r})\n" if frozen else ""
        manifest.write_text(f"{agent}module('_boot.py', base_path={str(BOOT.parent)!r}, opt=3)\n")
        (folder / "lib").mkdir()
        (folder / "lib/README.md").touch()  # a folder without it is fetched from the network
        _make(source / "mpy-cross", folder / "cross", ())
        options = (
            f"BOARD={BOARD}",
            f"MPY_LIB_DIR={folder / 'lib'}",
            f"MICROPY_MPYCROSS={folder / 'cross/mpy-cross'}",
            f"FROZEN_MANIFEST={manifest}",
            "MICROPY_VFS_LFS2=1",
        )
        _make(port, folder / "build", options)
        shutil.copyfile(folder / "build/firmware.elf", into / "firmware.elf")


def _port(source: Path, tree: Path) -> Path:
    # The source is shared and stays as it is: a tree of links to it, but for the port, which is a copy.
    (tree / "ports").mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "ports":
            (tree / path.name).symlink_to(path)
    port = tree / "ports/qemu"
    shutil.copytree(source / "ports/qemu", port)
    (port / "mpconfigport.h").rename(port / "mpconfigport_qemu.h")
    for path in OVERLAY.glob("*.[ch]"):
        shutil.copyfile(path, port / path.name)
    makefile = port / "Makefile"
    makefile.write_text(makefile.read_text().replace("\tmphalport.c", "\tvfs_rom_ioctl.c mphalport.c"))
    script = port / "mcu/arm/mps2.ld"
    # Debian's libgcc has unwinding tables, for which that script has no place.
    script.write_text(script.read_text().replace("*(.rodata*)", "*(.rodata*) *(.ARM.exidx*) *(.ARM.extab*)"))
    return port


def _make(folder: Path, build: Path, options: tuple[str, ...]) -> None:
    command = ["make", "-s", f"-j{os.cpu_count() or 1}", "-C", str(folder), f"BUILD={build}", "CFLAGS_EXTRA=-Wno-error"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Missing("MicroPython for a Cortex-M3", "the build took too long") from error
    if done.returncode:
        raise Missing("MicroPython for a Cortex-M3", f"the build failed: {(done.stderr or done.stdout).strip()[-500:]}")
