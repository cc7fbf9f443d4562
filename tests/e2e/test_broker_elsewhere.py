"""Logins at a broker that is reached over the network alone: a whole site with mosquitto's plugin dynamic-security."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from broker.access import BRIDGE
from fakes.login import Login, logs_in, until
from greenhouse import LIGHT, QUICK, SAMPLES, Greenhouse, create

ID = "k7m2q9xa"
FLEET = [f"fleet{n:04d}" for n in range(36)]


@pytest.fixture
def site(cluster: Cluster, broker_programs: object, make_site: Callable[..., Site]) -> Site:
    """A site whose bridge lets boards in over the network."""
    made = make_site(dynamic=True)
    if not made.broker.dynamic:
        pytest.skip("mochi-mqtt has no plugin dynamic-security")
    return made


def password(site: Site, board_id: str = ID, number: int = 1) -> str:
    return KeyRing(site.root, bytes(16)).broker_password(board_id, number)


def ready(site: Site) -> Greenhouse:
    """A board that is Ready; powered once it is let in, because one that was refused is in no hurry."""
    one = Greenhouse(site, site.cluster, "g1", site.add_board(ID, config=QUICK), ID)
    one.board.set_adc(LIGHT, 100)
    site.cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    create(one)
    assert until(lambda: logs_in(site.broker.port, ID, password(site)))
    one.board.start()
    one.synced()
    return one


def known(site: Site) -> set[str]:
    """The boards that the plugin's file lets in."""
    while True:
        with suppress(ValueError):  # mosquitto 2.0.11 writes it in place
            clients = json.loads(site.broker.dynamic_file.read_text())["clients"]
            return {client["username"] for client in clients} - {BRIDGE}


def test_a_login_follows_its_object_within_a_second(site: Site) -> None:
    """A board is Ready from an object alone; in and out within a second; revoked, it is thrown off for good."""
    one = ready(site)
    assert not logs_in(site.broker.port, ID, "wrong")
    two = Greenhouse(site, site.cluster, "g2", site.add_board("p4w8z1vc"), "p4w8z1vc")
    create(two)
    began = time.monotonic()
    assert until(lambda: logs_in(site.broker.port, two.board_id, password(site, two.board_id)))
    came = time.monotonic() - began
    with Login(site.broker.port, two.board_id, password(site, two.board_id)) as login:
        site.cluster.run("delete", "board", "g2", "--wait=false")
        began = time.monotonic()
        assert until(lambda: login.gone)
        went = time.monotonic() - began
    print(f"let in after {came:.3f} s, thrown off after {went:.3f} s")
    assert max(came, went) < 1
    revoke = '{"spec":{"credential":{"revokedKeyNumber":1}}}'
    site.cluster.run("patch", "board", "g1", "--type=merge", "-p", revoke)
    assert until(lambda: not logs_in(site.broker.port, ID, password(site)), 1)
    one.until("Ready", "False", "Revoked")
    site.cluster.run("patch", "board", "g1", "--type=merge", "-p", '{"spec":{"credential":{"keyNumber":2}}}')
    assert until(lambda: logs_in(site.broker.port, ID, password(site, number=2)))
    assert not logs_in(site.broker.port, ID, password(site))


def boards(site: Site, ids: list[str]) -> str:
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board"}
    spec = {"modelRef": {"name": "greenhouse"}}
    made = [{**body, "metadata": {"name": i}, "spec": {"boardID": i, **spec}} for i in ids]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": made})


def test_killed_in_mid_change_it_ends_right(site: Site) -> None:
    """The bridge is killed while it lets a fleet in, some go meanwhile, then the broker is killed: all is right."""
    one = ready(site)
    # Where a bridge that starts finds all of them at once, so that their logins are one change of many packets.
    site.bridge.kill()
    site.cluster.run("create", "-f", "-", stdin=boards(site, FLEET))
    site.bridge.process.start()
    assert until(lambda: len(known(site)) > 12)
    site.bridge.kill()
    assert 1 < len(known(site)) <= len(FLEET), "it was killed on its way"
    kept, gone = FLEET[4:], FLEET[:4]
    site.cluster.run("patch", "boards", *gone, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    site.cluster.run("delete", "boards", *gone, "--wait=false")
    site.bridge.start()
    assert until(lambda: known(site) == {ID, *kept})
    assert not logs_in(site.broker.port, gone[0], password(site, gone[0]))
    site.broker.kill()
    site.broker.start()
    site.cluster.run("delete", "board", kept[0], "--wait=false")
    assert until(lambda: known(site) == {ID, *kept[1:]})
    assert all(logs_in(site.broker.port, i, password(site, i)) for i in kept[1:])
    one.edit(led=True)
    one.synced()
    site.cluster.run("delete", "boards", "--all", "--timeout=20s")
    assert until(lambda: known(site) == set())
