"""MicroPython's unix port for 32 bits, built from Debian's source package: its heap is that of a Cortex-M to the byte.

A 64-bit interpreter needs about twice the heap of a chip, so that only this one can say whether the agent fits.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Final

from boardimage import simple
from boardimage.agent import FIRMWARE
from provision import cache, debs
from provision.missing import Missing
from provision.progress import Progress

VERSION: Final = "1.25.0"
PACKAGE: Final = "1.25.0+ds-1"
SUITE: Final = "trixie"
_BUILD_S: Final = 40.0
_TIMEOUT_S: Final = 900.0
# No libffi, TLS, Bluetooth or readline of the host: a chip has none of these either, and 32-bit libraries are rare.
_OPTIONS: Final = (
    "MICROPY_FORCE_32BIT=1",
    "MICROPY_PY_FFI=0",
    "MICROPY_PY_SSL=0",
    "MICROPY_PY_BTREE=0",
    "MICROPY_PY_BLUETOOTH=0",
    "MICROPY_PY_JNI=0",
)


def interpreter32(progress: Progress | None = None, *, frozen: bool = False) -> Path:
    """The 32-bit interpreter out of the cache, built first if need be, with the agent frozen in; raises `Missing`."""
    compiles()
    manifest = _manifest() if frozen else ""
    what = f"building MicroPython {VERSION} for 32 bits{', with the agent frozen' if frozen else ''}"
    version = f"{PACKAGE}-{_digest()}" if frozen else PACKAGE
    folder = cache.artifact(
        "micropython32",
        version,
        lambda into: _build(into, manifest),
        progress=progress,
        what=what,
        usual_s=_BUILD_S,
    )
    return folder / "micropython"


def _manifest() -> str:
    # What the port itself would freeze comes from repositories that the package does not have.
    return f"include({str(FIRMWARE / 'manifest.py')!r}, umqtt={str(simple().parents[1])!r})\n"


def _digest() -> str:
    # A frozen interpreter is one of the agent as it is now.
    seen = hashlib.sha256()
    for path in sorted(FIRMWARE.rglob("*.py")):
        seen.update(path.read_bytes())
    return seen.hexdigest()[:12]


def compiles() -> None:
    """Raises `Missing` where gcc cannot make 32-bit programs."""
    for tool, package in (("gcc", "gcc"), ("make", "make")):
        if which(tool) is None:
            raise Missing(tool, f"install the package {package}")
    with TemporaryDirectory() as folder:
        source = Path(folder) / "t.c"
        source.write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
        done = subprocess.run(["gcc", "-m32", str(source), "-o", f"{folder}/t"], capture_output=True, check=False)
    if done.returncode:
        raise Missing("a compiler for 32-bit programs (gcc -m32)", "install the package gcc-multilib")


def _build(into: Path, manifest: str) -> None:
    source = debs.fetch_source("micropython", PACKAGE, SUITE)
    with TemporaryDirectory(prefix="boardlet-mpy32-") as folder:
        _make(source / "mpy-cross", Path(folder) / "cross", ())
        cross = Path(folder) / "cross/mpy-cross"
        frozen = Path(folder) / "manifest.py"
        frozen.write_text(manifest)
        options = (*_OPTIONS, f"MICROPY_MPYCROSS={cross}", f"FROZEN_MANIFEST={frozen if manifest else ''}")
        _make(source / "ports/unix", Path(folder) / "unix", options)
        (into / "micropython").write_bytes((Path(folder) / "unix/micropython").read_bytes())
    (into / "micropython").chmod(0o755)


def _make(folder: Path, build: Path, options: tuple[str, ...]) -> None:
    command = ["make", "-s", f"-j{os.cpu_count() or 1}", "-C", str(folder), f"BUILD={build}", "CFLAGS_EXTRA=-Wno-error"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Missing("MicroPython for 32 bits", "the build took too long") from error
    if done.returncode:
        raise Missing("MicroPython for 32 bits", f"the build failed: {done.stderr.strip()[-500:]}")
