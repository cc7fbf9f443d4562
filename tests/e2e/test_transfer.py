"""The runbook of docs/operations.md, Transfer: a board goes to another cluster or site, and is right there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator

import controlplane
import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boardlet_wire.keys import board_key
from fakes.login import logs_in, until
from greenhouse import LED, SAMPLES, Greenhouse, greenhouse

ID = "k7m2q9xa"


@pytest.fixture
def elsewhere(plane: controlplane.ControlPlane) -> Iterator[Cluster]:
    """Another namespace, which stands for another cluster: no bridge of the first one looks into it."""
    made = Cluster(plane.programs.kubectl, plane.kubectl_env(), namespace=f"t-{uuid.uuid4().hex[:10]}")
    made.run("create", "namespace", made.namespace or "")
    made.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    yield made
    made.run("patch", "board", "g1", "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)
    made.run("delete", "namespace", made.namespace or "", "--wait=false")


def exported(one: Greenhouse) -> str:
    """What of the object goes along: name, labels and spec."""
    found = one.object
    kept = {key: found["metadata"][key] for key in ("name", "labels") if key in found["metadata"]}
    return json.dumps({**{key: found[key] for key in ("apiVersion", "kind", "spec")}, "metadata": kept})


def test_to_another_cluster_nothing_on_the_board_changes(site: Site, elsewhere: Cluster) -> None:
    """With root key and broker the same, the board follows the object of the new cluster, above every old revision."""
    one = greenhouse(site, board_id=ID)
    for led in (True, False, True):
        one.edit(led=led)
        before = one.synced()
    site.bridge.stop()
    elsewhere.run("create", "-f", "-", stdin=exported(one))
    other = BridgeProcess(site.folder, {**site.settings, "namespaces": json.dumps([elsewhere.namespace])})
    try:
        other.start()
        moved = Greenhouse(site, elsewhere, "g1", one.board, ID)
        after = moved.synced()
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["status"]["desired"]["revision"] > before["status"]["desired"]["revision"]
        assert after["status"]["board"]["bootCount"] == before["status"]["board"]["bootCount"]
        assert one.board.pin(LED) == 1, "it never went off on the way"
        moved.edit(led=False)
        moved.reported(led=False)
    finally:
        other.stop()


def test_to_another_site_it_is_flashed(make_site: Callable[..., Site], elsewhere: Cluster) -> None:
    """Deleted at the old site, whose broker then refuses it, and flashed for the new one, it is Ready there."""
    old = make_site(credentials=True)
    if not old.broker.kept_by_bridge:
        pytest.skip("the files are mosquitto's")
    one = greenhouse(old, board_id=ID)
    one.edit(led=True)
    body, before = exported(one), one.synced()
    old.cluster.run("delete", "board", "g1", "--timeout=20s")
    secret = KeyRing(old.root, bytes(16)).broker_password(ID)
    assert until(lambda: not logs_in(old.broker.port, ID, secret))
    one.board.kill()
    new = make_site({"namespaces": json.dumps([elsewhere.namespace])}, credentials=True)
    elsewhere.run("create", "-f", "-", stdin=body)
    assert until(lambda: logs_in(new.broker.port, ID, KeyRing(new.root, bytes(16)).broker_password(ID)))
    config = json.loads((one.board.flash / "config.json").read_text())  # as boardlet flash writes it
    config |= {"key": board_key(new.root, ID, 1).hex(), "host": "127.0.0.1", "port": new.broker.board_port}
    (one.board.flash / "config.json").write_text(json.dumps(config))
    one.board.start()
    moved = Greenhouse(new, elsewhere, "g1", one.board, ID)
    after = moved.synced()
    assert after["status"]["desired"]["revision"] > before["status"]["desired"]["revision"]
    moved.edit(led=False)
    moved.reported(led=False)
