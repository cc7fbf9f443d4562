"""What the images of this folder are made of: podman, Debian's packages, wheels under the lock's hashes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, rmtree, which
from tempfile import mkdtemp

from provision import cache, debs
from provision.missing import Missing

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.13-slim"
SUITE = "trixie"
BUILD_S = 600
TIMESTAMP = "1700000000"
# pip's options for the wheels of arm64, on any machine. The lock names everything: pip need not follow dependencies.
ARM64 = ("--no-deps", *(f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_28")))
# As root, a command whose end, however it comes, is the end of all that it has started.
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
# As root in a sandbox: no cgroups of its own, no limits to raise, the host's network.
CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
netns = "host"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Engine:
    """podman, with what this machine needs to build offline."""

    def __init__(self, program: str, env: dict[str, str]) -> None:
        self.program, self.env = program, env

    def run(
        self, *arguments: str | Path, check: bool = True, timeout_s: float = 120, within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        command = [*within, self.program, *map(str, arguments)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def compressed(self, image: str, folder: Path) -> list[int]:
        """The bytes of each layer as a registry keeps it, the base's first; `folder` is made."""
        self.run("push", "--quiet", image, f"dir:{folder}")
        sizes = []
        for layer in json.loads((folder / "manifest.json").read_text())["layers"]:
            blob = (folder / layer["digest"].removeprefix("sha256:")).read_bytes()
            sizes.append(len(blob) if layer["mediaType"].endswith("gzip") else len(gzip.compress(blob, 6)))
        return sizes


@dataclass(frozen=True)
class Context:
    """A folder to build the bridge's image from, offline: sources and wheels."""

    engine: Engine
    folder: Path
    base: str

    def build(self, name: str, *more: str, timeout_s: float = BUILD_S, within: Sequence[str] = ()) -> None:
        """Build the image `name` as `make image` does, without a network; `within` is a command that runs podman."""
        self.engine.run(
            *("build", "--network=none", "--build-arg", "WHEELS=wheels", "--build-arg", f"BASE={self.base}"),
            *("--timestamp", TIMESTAMP, *more, "-f", str(self.folder / "bridge/Containerfile")),
            *("-t", name, str(self.folder)),
            timeout_s=timeout_s,
            within=within,
        )


@contextmanager
def stored(engine: Engine) -> Iterator[Engine]:
    """The engine with a store of its own, which goes with all that is in it: also with what a killed build left."""
    folder = Path(mkdtemp(prefix="boardlet-"))  # short: podman takes no path of more than 50 characters
    driver = engine.run("info", "--format", "{{.Store.GraphDriverName}}").stdout.strip()
    conf = f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(conf)
    own = {"CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"), "TMPDIR": str(folder)}
    try:
        yield Engine(engine.program, engine.env | own)
    finally:
        for mount in reversed(Path("/proc/mounts").read_text().splitlines()):
            if mount.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", mount.split()[1]], check=True)
        rmtree(folder)


@contextmanager
def laid(engine: Engine, base: str, *platform: str) -> Iterator[Context]:
    """What an image on `base` is built from, while it is wanted; wheels are for `platform`, as `wheels` says."""
    folder = ROOT / "build" / f"context-{uuid.uuid4().hex[:8]}"
    try:
        for part in ("bridge", "crds", "firmware/boardlet_wire", "tools/fleet"):
            copytree(ROOT / part, folder / part, ignore=lambda _, names: {"__pycache__", "chart"} & set(names))
        wheels(folder / "wheels", *platform)
        yield Context(engine, folder, base)
    finally:
        rmtree(folder, ignore_errors=True)


def debian(name: str, packages: str, *more: str, timeout_s: float = BUILD_S) -> Path:
    """A root file system of Debian with these packages: what builds from one builds from the official images.

    `more` goes to mmdebstrap.
    """
    if which("mmdebstrap") is None:
        raise Missing("mmdebstrap", "no registry is reached without it: install the package mmdebstrap")

    def build(into: Path) -> None:
        command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", *more, SUITE, str(into / "base.tar")]
        command.append(debs.debian_mirror())
        made = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if made.returncode:
            raise Missing(name, f"mmdebstrap failed: {made.stderr[-400:]}")

    return cache.artifact(name, SUITE, build) / "base.tar"


def wheels(into: Path, *platform: str) -> None:
    """Download what the image installs, under the lock's hashes: for this machine, or as pip's options say."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python-version", "3.13", "--implementation", "cp", "--dest", str(into)]
    command += [*platform, "-r", str(ROOT / "bridge/requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr
