"""umqtt.simple, which the agent's link is a subclass of: fetched from the package index by name, version and hash.

pip cannot download it, because its source package has no set-up script; `unearth`, pip's own finder, can.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from provision import cache
from provision.missing import Missing
from provision.progress import Progress

NAME: Final = "micropython-umqtt.simple"
VERSION: Final = "1.3.4"
SHA256: Final = "b6a2520239e3992c63a7de9370ee9b3d9d27819a90359c521f1c0f7ccab8d12f"
_FETCH_S: Final = 5.0
_TIMEOUT_S: Final = 120.0


def simple(progress: Progress | None = None) -> Path:
    """The file umqtt/simple.py; raises `Missing` where the package index cannot be reached or has another file."""
    what = f"fetching {NAME} {VERSION}"
    return cache.artifact("umqtt", VERSION, _fetch, progress=progress, what=what, usual_s=_FETCH_S) / "umqtt/simple.py"


def _fetch(into: Path) -> None:
    command = [sys.executable, "-m", "unearth", "--no-binary", "-d", str(into), f"{NAME}=={VERSION}"]
    index = os.environ.get("PIP_INDEX_URL")
    command += ["--index-url", index] if index else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{NAME} {VERSION}", "the package index does not answer; check the network") from error
    archives = list(into.glob("*.tar.gz"))
    if done.returncode or not archives:
        raise Missing(f"{NAME} {VERSION}", f"check the network and the package index: {done.stderr.strip()[-300:]}")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != SHA256:
        raise Missing(f"{NAME} {VERSION}", f"the package index gave a file with the SHA-256 {found}, not {SHA256}")
    with tarfile.open(archives[0]) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("/umqtt/simple.py"))
        source = archive.extractfile(member)
        assert source is not None
        (into / "umqtt").mkdir()
        (into / "umqtt/simple.py").write_bytes(source.read())
    archives[0].unlink()
