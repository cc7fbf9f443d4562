"""Images for the tests of this folder: podman, a base, the bridge's image, a broker's from Debian's packages."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, rmtree, which

import pytest
from provision import cache, debs
from provision.missing import Missing

ROOT = Path(__file__).parents[2]
collect_ignore = [] if os.environ.get("BOARDLET_NODE") else ["test_node.py"]  # `make node`
BASE = "docker.io/library/python:3.13-slim"
SUITE = "trixie"
BUILD_S = 600
TIMESTAMP = "1700000000"
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
        self, *arguments: str | Path, check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command = [self.program, *map(str, arguments)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    program = which("podman")
    if program is None:
        pytest.skip("podman: install it")
    folder = tmp_path_factory.mktemp("containers")
    (folder / "containers.conf").write_text(CONF)
    env = dict(os.environ)
    if os.geteuid() == 0:
        env["CONTAINERS_CONF"] = str(folder / "containers.conf")
    made = Engine(program, env)
    if made.run("info", check=False).returncode:
        pytest.skip(f"{program} does not run here: {made.run('info', check=False).stderr[-200:]}")
    return made


@dataclass(frozen=True)
class Context:
    """A folder to build the bridge's image from, offline: sources and wheels."""

    engine: Engine
    folder: Path

    def build(self, name: str, *more: str) -> None:
        """Build the image `name` as `make image` does, without a network."""
        self.engine.run(
            *("build", "--network=none", "--build-arg", "WHEELS=wheels", "--build-arg", f"BASE={BASE}"),
            *("--timestamp", TIMESTAMP, *more, "-f", self.folder / "bridge/Containerfile", "-t", name, self.folder),
            timeout_s=BUILD_S,
        )


@pytest.fixture(scope="session")
def base(engine: Engine) -> Iterator[str]:
    """The official base where it can be had, else one made of Debian's packages under its name."""
    imported = False
    if engine.run("pull", "--quiet", BASE, check=False, timeout_s=120).returncode:
        try:
            tar = debian("container-base", "python3,python3-venv,ca-certificates")
        except Missing as missing:
            pytest.skip(str(missing))
        engine.run("import", tar, BASE, timeout_s=BUILD_S)
        imported = True
    yield BASE
    if imported:
        engine.run("rmi", "--force", BASE, check=False)
    engine.run("image", "prune", "--force", check=False)


@pytest.fixture(scope="session")
def context(engine: Engine, base: str) -> Iterator[Context]:
    """What an image is built from."""
    folder = ROOT / "build" / f"context-{uuid.uuid4().hex[:8]}"
    try:
        for part in ("bridge", "crds", "firmware/boardlet_wire", "tools/fleet"):
            copytree(ROOT / part, folder / part, ignore=lambda _, names: {"__pycache__", "chart"} & set(names))
        _wheels(folder / "wheels")
        yield Context(engine, folder)
    finally:
        rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def image(context: Context) -> Iterator[str]:
    """The bridge's image."""
    name = f"boardlet-bridge-test:{uuid.uuid4().hex[:8]}"
    context.build(name)
    yield name
    context.engine.run("rmi", "--force", name, check=False)


@pytest.fixture(scope="session")
def broker_image(engine: Engine) -> Iterator[str]:
    """mosquitto as Debian packages it: the chart's own broker image has the same program and also a shell."""
    name = f"boardlet-broker-test:{uuid.uuid4().hex[:8]}"
    try:
        tar = debian("container-broker", "mosquitto")
    except Missing as missing:
        pytest.skip(str(missing))
    engine.run("import", tar, name, timeout_s=BUILD_S)
    yield name
    engine.run("rmi", "--force", name, check=False)


def debian(name: str, packages: str) -> Path:
    """A root file system of Debian with these packages: what builds from one builds from the official images."""
    if which("mmdebstrap") is None:
        raise Missing("mmdebstrap", "no registry is reached without it: install the package mmdebstrap")

    def build(into: Path) -> None:
        command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", SUITE, str(into / "base.tar")]
        command.append(debs.debian_mirror())
        made = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
        if made.returncode:
            raise Missing(name, f"mmdebstrap failed: {made.stderr[-400:]}")

    return cache.artifact(name, SUITE, build) / "base.tar"


def _wheels(into: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python-version", "3.13", "--implementation", "cp", "--dest", str(into)]
    command += ["-r", str(ROOT / "bridge/requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr
