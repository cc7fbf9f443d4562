"""One arena for all attacks; each has a victim of its own, so that what is shown on it is the attack's work."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from broker import Programs
from controlplane import ControlPlane

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "e2e")]

from arena import Arena  # noqa: E402 - found by the line before
from fakes.lying_broker import LyingBroker  # noqa: E402
from greenhouse import SAMPLES, Greenhouse  # noqa: E402


@pytest.fixture(scope="session")
def arena(plane: ControlPlane, broker_programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    names = [f"t-{uuid.uuid4().hex[:10]}" for _ in range(2)]
    ours, theirs = [Cluster(plane.programs.kubectl, plane.kubectl_env(), namespace=name) for name in names]
    for cluster in (ours, theirs):
        cluster.run("create", "namespace", str(cluster.namespace))
        cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    with LyingBroker() as liar:
        settings = {"namespaces": ",".join(names), "broker_port": liar.port, "status_interval_s": 0.2}
        site = Site(tmp_path_factory.mktemp("arena"), ours, broker_programs, settings)
        liar.to(site.broker.port)
        with site:
            made = Arena(site, ours, theirs, liar)
            made.neighbour = made.join()
            yield made
            for cluster in (ours, theirs):
                cluster.run("delete", "boards", "--all", "--timeout=20s", check=False)
                cluster.run("delete", "namespace", str(cluster.namespace), "--wait=false")
        print(f"--- bridge\n{site.bridge.log[-6000:]}")


@pytest.fixture
def victim(arena: Arena) -> Iterator[Greenhouse]:
    """A board that is Ready, its LED on."""
    made = arena.join()
    yield made
    print(f"--- bridge\n{arena.site.bridge.log[-3000:]}")
    print(f"--- board\n{made.board.log.read_text(errors='replace')[-1500:]}")
    arena.leave(made)
