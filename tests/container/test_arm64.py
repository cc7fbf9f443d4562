"""The bridge's image for arm64, built and run: on a machine of another kind by QEMU, which the kernel starts for it.

`make arm64` runs it, `make test` does not: emulated, Debian's packages and ours take minutes to install. Only what is
in the container is of arm64; control plane, broker and board are this machine's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from emulator import aarch64
from images import ALONE, ARM64, Engine, debian, laid, stored
from provision.missing import Missing
from told import told
from waiting import hold_on

ROOT = Path(__file__).parents[2]
PLATFORM = "linux/arm64"
MAX_BYTES = 100_000_000  # compressed, as for amd64
BUILD_S = 1800  # emulated, on a busy machine
READY_S = 120
SYNCED_S = 60
GRACE_S = 30  # terminationGracePeriodSeconds of the chart
LED = 2
EDITOR = "sed -i 's/led: true/led: false/'"


@pytest.fixture(scope="module")
def engine(engine: Engine) -> Iterator[Engine]:
    """A build of minutes may be interrupted: nothing of it stays."""
    with stored(engine) as made:
        yield made


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    """The bridge's image for arm64, on a base of Debian's packages: which one a registry would give is not asked."""
    base, name = "localhost/boardlet-base:arm64", "localhost/boardlet-bridge:arm64"
    try:
        with aarch64() as emulator:
            print(f"\n    programs for AArch64 are run by {emulator}")
            with told("Debian's packages for arm64 installed, or found in the cache"):
                options = ("--architectures=arm64", "--skip=check/qemu")  # that would ask for arch-test, to find QEMU
                packages = "python3,python3-venv,ca-certificates"
                tar = debian("container-base-arm64", packages, *options, timeout_s=BUILD_S)
            engine.run("import", "--arch", "arm64", tar, base, timeout_s=BUILD_S)
            with laid(engine, base, *ARM64) as context, told("the image built offline"):
                runtime = f"--runtime-flag=root={engine.env['TMPDIR']}/runtime"
                context.build(name, "--platform", PLATFORM, "--pull=never", runtime, timeout_s=BUILD_S, within=ALONE)
            yield name
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.timeout(3 * BUILD_S)
def test_the_image_is_for_arm64_and_small(engine: Engine, image: str, tmp_path: Path) -> None:
    """Its configuration says so, and compressed as a registry keeps it, it is below 100 MB."""
    (said,) = json.loads(engine.run("image", "inspect", image).stdout)
    assert (said["Os"], said["Architecture"]) == ("linux", "arm64")
    sizes = engine.compressed(image, tmp_path / "pushed")
    print(f"\n    {sum(sizes) / 1e6:.1f} MB compressed, {sum(sizes[-2:]) / 1e6:.1f} MB of them on top of the base")
    assert sum(sizes) < MAX_BYTES


@pytest.mark.timeout(900)
def test_the_container_serves_a_board(
    engine: Engine, image: str, make_site: Callable[..., Site], serve: Callable[..., tuple[str, int]]
) -> None:
    """Read-only, without any capability: a Board is Ready, a kubectl edit comes through, and SIGTERM ends it with 0."""
    site = make_site()
    site.bridge.stop()
    with told("the container started, the bridge ready"):
        name, site.bridge.port = serve(site, image, "--platform", PLATFORM, "--pull=never")
        hold_on(lambda: site.bridge.ready, READY_S)
    assert engine.run("exec", name, "uname", "-m").stdout == "aarch64\n"
    asked = "import os, platform; print(os.getuid(), platform.machine())"
    assert engine.run("exec", name, "/opt/boardlet/bin/python", "-c", asked).stdout == "65532 aarch64\n"

    site.cluster.run("apply", "-f", str(ROOT / "crds/samples/greenhouse.yaml"))
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "g1"}}
    body["spec"] = {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}, "properties": {"led": True}}
    site.cluster.run("create", "-f", "-", stdin=json.dumps(body))
    board = site.add_board("k7m2q9xa")
    with told("a board powered on, its Board Ready"):
        board.start()
        synced(site.cluster, 1)
    assert board.pin(LED) == 1

    env = {**site.cluster.env, "KUBE_EDITOR": EDITOR}
    with told("kubectl edit, the board Ready at the new generation"):
        Cluster(site.cluster.kubectl, env, namespace=site.cluster.namespace).run("edit", "board", "g1")
        synced(site.cluster, 2)
    assert board.pin(LED) == 0

    with told("SIGTERM, the container has ended"):
        engine.run("stop", "--time", str(GRACE_S), name)
    assert engine.run("inspect", name, "--format", "{{.State.ExitCode}}").stdout == "0\n"


def synced(cluster: Cluster, generation: int) -> None:
    """Wait until the board itself has said that it runs this generation."""

    def true(obj: dict[str, Any]) -> bool:
        ready = next((c for c in obj.get("status", {}).get("conditions", ()) if c["type"] == "Ready"), None)
        return bool(ready and ready["status"] == "True" and obj["status"].get("observedGeneration") == generation)

    cluster.until("board", "g1", true, SYNCED_S)
