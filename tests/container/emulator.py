"""Programs for AArch64 on a machine of another kind: QEMU, which the kernel starts for each of them (binfmt_misc)."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provision import debs
from provision.missing import Missing

FOLDER = Path("/proc/sys/fs/binfmt_misc")
OURS = FOLDER / "boardlet-aarch64"  # not QEMU's usual name: what a killed run left is known by it, and taken away
# The head of an ELF file: 64 bits, little endian, any ABI, an executable or position-independent, machine 183.
MAGIC = bytes.fromhex("7f454c460201010000000000000000000200b700")
MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff")
NATIVE = ("aarch64", "arm64")


@contextmanager
def aarch64() -> Iterator[str]:
    """Yields what runs programs for AArch64 here; what had to be registered or mounted for that is undone afterwards.

    Raises `Missing` where nothing does, and nothing can be made to.
    """
    if platform.machine() in NATIVE:
        yield "this machine"
        return
    mounted = not (FOLDER / "register").exists()
    if mounted:
        _mount()
    try:
        if OURS.exists():
            OURS.write_text("-1")
        there = _registered()
        if not there:
            _register()
        try:
            yield _registered()
        finally:
            if not there:
                OURS.write_text("-1")
    finally:
        if mounted:
            subprocess.run(["umount", str(FOLDER)], check=True)


def _mount() -> None:
    command = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"binfmt_misc ({done.stderr.strip()})", f"as root: {' '.join(command)}")


def _registered() -> str:
    # The interpreter of the first entry that a container could use: one whose file the kernel keeps open (F).
    for entry in sorted(FOLDER.iterdir()):
        lines = entry.read_text().splitlines() if entry.name not in ("register", "status") else []
        said = dict(line.partition(" ")[::2] for line in lines)
        if "enabled" in said and said.get("magic") == MAGIC.hex() and "F" in said.get("flags:", ""):
            return said["interpreter"]
    return ""


def _register() -> None:
    qemu = debs.installed("qemu-aarch64-static")
    if qemu is None:
        raise Missing("an emulator of AArch64", "install the package qemu-user-static")
    magic, mask = ("".join(f"\\x{byte:02x}" for byte in part) for part in (MAGIC, MASK))
    try:
        (FOLDER / "register").write_text(f":{OURS.name}:M::{magic}:{mask}:{qemu.path}:F")
    except OSError as error:
        raise Missing(f"an emulator of AArch64 (binfmt_misc: {error})", "run it as root") from error
