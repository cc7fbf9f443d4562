"""The bridge's container: built from bridge/Containerfile, it serves a board without root or a writable disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from boardlet_cli.site import Site
from images import ARM64, Context, Engine, wheels

ROOT = Path(__file__).parents[2]
MAX_OWN_BYTES = 15_000_000  # compressed, on top of the base; 10.9 MB are measured
MAX_BYTES = 100_000_000


@pytest.mark.timeout(1200)
def test_the_container_serves_a_board(
    engine: Engine, image: str, make_site: Callable[..., Site], serve: Callable[..., tuple[str, int]]
) -> None:
    """Read-only, without any capability, as an unprivileged user: the container makes a Board Ready, and is healthy."""
    site = make_site()
    site.bridge.stop()
    name, port = serve(site, image)
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


def test_the_same_sources_give_the_same_image(engine: Engine, context: Context, image: str) -> None:
    """Two builds from nothing have one digest: a site can check what it was given."""
    again = f"boardlet-bridge-test:{uuid.uuid4().hex[:8]}"
    try:
        context.build(again, "--no-cache")
        ids = {engine.run("image", "inspect", name, "--format", "{{.Id}}").stdout for name in (image, again)}
        assert len(ids) == 1
    finally:
        engine.run("rmi", again, check=False)


def test_the_image_is_small(engine: Engine, image: str, tmp_path: Path) -> None:
    """Compressed as a registry keeps it, the image is below 100 MB, and our part of it below 15 MB."""
    sizes = engine.compressed(image, tmp_path / "pushed")
    print(f"image: {sum(sizes) / 1e6:.1f} MB compressed, {sum(sizes[-2:]) / 1e6:.1f} MB of them on top of the base")
    assert sum(sizes[-2:]) < MAX_OWN_BYTES
    assert sum(sizes) < MAX_BYTES


def test_the_image_says_what_it_is(engine: Engine, image: str) -> None:
    """Labels name title, licence and version; the user has a name, and a name is found for any other number too."""
    labels = json.loads(engine.run("image", "inspect", image, "--format", "{{json .Labels}}").stdout)
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert labels["org.opencontainers.image.version"] == version[1]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"] == "boardlet-bridge"
    code = "import getpass; print(getpass.getuser())"
    python = ("--entrypoint", "/opt/boardlet/bin/python")
    named = engine.run("run", "--rm", "--read-only", "--unsetenv", "USER", *python, image, "-c", code)
    other = engine.run("run", "--rm", "--read-only", "--user", "54321", *python, image, "-c", code)
    assert (named.stdout, other.stdout) == ("boardlet\n", "boardlet\n")


def test_the_image_can_serve_a_folder(engine: Engine, image: str) -> None:
    """The kinds' schemas are in it, and the kernel's notices reach it, read-only and unprivileged as it is."""
    code = (
        "from pathlib import Path; from boardlet_bridge.folder.kind import kinds; "
        "from boardlet_bridge.folder.notify import Notify; "
        "Notify(Path('/tmp')).follow([Path('/tmp')]); print(*sorted(kinds()))"
    )
    python = ("--entrypoint", "/opt/boardlet/bin/python")
    assert engine.run("run", "--rm", "--read-only", *python, image, "-c", code).stdout == "Board BoardModel\n"


def test_the_image_can_run_helm_test(engine: Engine, image: str) -> None:
    """The simulated board of `helm test` is in it, with all that it imports."""
    python = ("--entrypoint", "/opt/boardlet/bin/python")
    done = engine.run("run", "--rm", "--read-only", *python, image, "-m", "fleet.trial", "--help")
    assert "--broker" in done.stdout


def test_hadolint_has_nothing_to_say() -> None:
    """The Containerfile is clean to hadolint, but for what it says itself that it ignores."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, ROOT / "bridge/Containerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_bill_of_materials_is_the_lock_file(tmp_path: Path) -> None:
    """`make sbom` lists what the image installs: each package of the lock with its version and hashes."""
    made = tmp_path / "sbom.json"
    command = ["make", "-s", "sbom", f"SBOM={made}", f"BIN={Path(sys.executable).parent}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True)
    sbom = json.loads(made.read_text())
    locked = re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "bridge/requirements.txt").read_text(), re.MULTILINE)
    assert sbom["bomFormat"] == "CycloneDX"
    assert sorted((part["name"], part["version"]) for part in sbom["components"]) == sorted(locked)
    assert all(part["externalReferences"][0]["hashes"] for part in sbom["components"])
    assert sbom["metadata"]["component"]["name"] == "boardlet"


def test_the_lock_has_wheels_for_arm64(tmp_path: Path) -> None:
    """Everything that the image installs is there as a wheel for arm64 too, under the lock's hashes."""
    wheels(tmp_path, *ARM64)
    assert list(tmp_path.glob("*aarch64.whl"))
    assert not list(tmp_path.glob("*x86_64*"))
