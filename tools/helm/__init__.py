"""Helm: the one on PATH if it is recent enough, else built once into the cache from the Go module beside this file."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Final

from provision import cache, golang
from provision.progress import Progress

MODULE: Final = Path(__file__).parent / "go"
OLDEST: Final = (3, 18)  # the oldest that the chart is made for: the first whose JSON schemas are 2020-12
_PACKAGES: Final = 1100
_BUILD_S: Final = 150.0  # two quiet cores, downloads included


def find(progress: Progress | None = None) -> Path:
    """The program `helm`; raises `Missing` or `golang.BuildFailed` where it must be built and cannot be."""
    path = which("helm")
    if path is not None and _version(Path(path)) >= OLDEST:
        return Path(path)
    return built(progress)


def built(progress: Progress | None = None) -> Path:
    """The program out of the cache, built first if it is not there yet."""
    release = helm_release()
    stamp = f"-X helm.sh/helm/v4/internal/version.version=v{release}"
    key = hashlib.sha256(f"{stamp}\n{platform.machine()}".encode())
    for part in ("go.mod", "go.sum"):
        key.update((MODULE / part).read_bytes())

    def build(into: Path) -> None:
        command = {"helm": "helm.sh/helm/v4/cmd/helm"}
        golang.build(MODULE, command, into, ldflags=[stamp], packages={"helm": _PACKAGES}, progress=progress)

    version = f"{release}-{key.hexdigest()[:12]}"
    if not cache.there("helm", version):
        golang.toolchain(MODULE, progress)
    what = f"building Helm {release}, once for this machine"
    return cache.artifact("helm", version, build, progress=progress, what=what, usual_s=_BUILD_S) / "helm"


def helm_release() -> str:
    """The Helm version that the Go module names, without the v."""
    found = re.search(r"^(?:require )?\s*helm\.sh/helm/v4 v(\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError("go.mod names no version of helm.sh/helm/v4")
    return found[1]


def _version(helm: Path) -> tuple[int, int]:
    done = subprocess.run(
        [str(helm), "version", "--short"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)
