"""The bridge's container: built from bridge/Containerfile, it serves a board without root or a writable disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree, rmtree, which

import pytest
from boardlet_cli.site import Site
from provision import cache, debs
from provision.missing import Missing
from provision.process import free_port

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.13-slim"
SUITE = "trixie"
BUILD_S = 600
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
    """podman or docker, with what this machine needs to build offline."""

    def __init__(self, program: str, env: dict[str, str]) -> None:
        self.program, self.env = program, env

    def run(
        self, *arguments: str | Path, check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command = [self.program, *map(str, arguments)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    program = which("podman") or which("docker")
    if program is None:
        pytest.skip("podman or docker: install one of them")
    folder = tmp_path_factory.mktemp("containers")
    (folder / "containers.conf").write_text(CONF)
    env = dict(os.environ)
    if os.geteuid() == 0 and program.endswith("podman"):
        env["CONTAINERS_CONF"] = str(folder / "containers.conf")
    made = Engine(program, env)
    if made.run("info", check=False).returncode:
        pytest.skip(f"{program} does not run here: {made.run('info', check=False).stderr[-200:]}")
    return made


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    """The bridge's image; from the official base where it can be had, else from one made of Debian's packages."""
    name = f"boardlet-bridge-test:{uuid.uuid4().hex[:8]}"
    imported = False
    if engine.run("pull", "--quiet", BASE, check=False, timeout_s=120).returncode:
        try:
            tar = _base()
        except Missing as missing:
            pytest.skip(str(missing))
        engine.run("import", tar, BASE, timeout_s=BUILD_S)
        imported = True
    context = ROOT / "build/context"
    rmtree(context, ignore_errors=True)
    try:
        for part in ("bridge", "firmware/boardlet_wire"):
            copytree(ROOT / part, context / part)
        _wheels(context / "wheels")
        engine.run(
            *("build", "--network=none", "--build-arg", "WHEELS=wheels", "--build-arg", f"BASE={BASE}"),
            *("-f", context / "bridge/Containerfile", "-t", name, context),
            timeout_s=BUILD_S,
        )
        yield name
    finally:
        rmtree(context, ignore_errors=True)
        engine.run("rmi", "--force", name, check=False)
        if imported:
            engine.run("rmi", "--force", BASE, check=False)
        engine.run("image", "prune", "--force", check=False)


def _base() -> Path:
    # Debian's python3 of the same version under the official image's name: what builds from one builds from the other.
    if which("mmdebstrap") is None:
        raise Missing(f"{BASE}", "no registry is reached, and there is no mmdebstrap: install the package mmdebstrap")

    def build(into: Path) -> None:
        command = ["mmdebstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", SUITE]
        made = subprocess.run(
            [*command, str(into / "base.tar"), debs.debian_mirror()],
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        if made.returncode:
            raise Missing(BASE, f"mmdebstrap failed: {made.stderr[-400:]}")

    return cache.artifact("container-base", SUITE, build) / "base.tar"


def _wheels(into: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python-version", "3.13", "--implementation", "cp", "--dest", str(into)]
    command += ["-r", str(ROOT / "bridge/requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(1200)
def test_the_container_serves_a_board(
    engine: Engine, image: str, make_site: Callable[..., Site], tmp_path: Path
) -> None:
    """Read-only, without any capability, as an unprivileged user: the container makes a Board Ready, and is healthy."""
    site = make_site()
    site.bridge.stop()
    port = free_port()
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    settings = {**site.settings, "http_port": port, "http_host": "127.0.0.1"}
    for name in ("root_key_file", "broker_password_file", "kubeconfig"):
        content = Path(str(settings[name])).read_text()
        (secrets / name).write_text(content)
        (secrets / name).chmod(0o444)
        settings[name] = f"/secrets/{name}"
    env = [part for key, value in settings.items() for part in ("-e", f"BOARDLET_{key.upper()}={value}")]
    name = f"boardlet-{uuid.uuid4().hex[:8]}"
    try:
        engine.run(
            *("run", "-d", "--name", name, "--network", "host", "--read-only", "--cap-drop", "all"),
            *("--security-opt", "no-new-privileges", "-v", f"{secrets}:/secrets:ro", *env, image),
        )
        site.cluster.run("apply", "-f", str(ROOT / "crds/samples/greenhouse.yaml"))
        body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "g1"}}
        body["spec"] = {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}, "properties": {"led": True}}
        site.cluster.run("create", "-f", "-", stdin=json.dumps(body))
        board = site.add_board("k7m2q9xa")
        board.start()
        site.cluster.run("wait", "--for=condition=Ready", "board/g1", "--timeout=60s")
        assert board.pin(2) == 1
        who = engine.run("exec", name, "/opt/boardlet/bin/python", "-c", "import os; print(os.getuid())").stdout
        assert who.strip() == "65532"
        probe = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/readyz').status)"
        assert engine.run("exec", name, "/opt/boardlet/bin/python", "-c", probe).stdout.strip() == "200"
        size = int(engine.run("image", "inspect", image, "--format", "{{.Size}}").stdout)
        print(f"image: {size / 1e6:.0f} MB with its base")
    finally:
        print(engine.run("logs", name, check=False).stderr[-3000:])
        engine.run("rm", "--force", name, check=False)
