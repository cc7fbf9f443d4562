"""The kinds are removed from the cluster under a running bridge, by mistake, and applied again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from controlplane import ControlPlane
from greenhouse import LED, SAMPLES, create, greenhouse


@pytest.fixture(scope="module")
def plane(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own: the kinds go for everybody, and only once all Boards of all tests are gone."""
    with ControlPlane(tmp_path_factory.mktemp("own-plane"), plane.programs) as made:
        Cluster(plane.programs.kubectl, made.kubectl_env()).install()
        yield made


def test_kinds_that_come_back_are_watched_again(site: Site, cluster: Cluster) -> None:
    """The bridge says that the kinds are missing, and edits arrive at once when they are there again."""
    one = greenhouse(site)
    one.synced()
    cluster.run("delete", "crd", "boards.boardlet.dev", "boardmodels.boardlet.dev", "--timeout=60s")
    site.bridge.process.wait_until(lambda: site.bridge.parts().get("cluster", "").startswith("404"))
    cluster.install()
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    create(one)
    site.bridge.wait_ready(60)
    one.synced(wait_s=60)
    one.edit(led=True)
    one.synced(wait_s=20)  # far below the interval of the listing
    assert one.board.pin(LED) == 1
    assert "Traceback" not in site.bridge.log
