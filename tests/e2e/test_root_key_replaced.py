"""The runbook of docs/operations.md, Root key, step by step: real bridge, broker, API server and boards."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable

import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.root_key import RootKey
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boardlet_wire.keys import board_key
from broker.access import replace
from fakes.login import logs_in, until
from greenhouse import Greenhouse, greenhouse

NEW = RootKey(100, secrets.token_bytes(32))


@pytest.fixture
def site(cluster: Cluster, broker_programs: object, make_site: Callable[..., Site]) -> Site:
    """A site whose bridge keeps the broker's users."""
    made = make_site(credentials=True)
    if not made.broker.kept_by_bridge:
        pytest.skip("the files are mosquitto's")
    return made


def restart(site: Site, *lines: str) -> None:
    """The bridge with this file of root keys."""
    site.bridge.stop()
    replace(site.folder / "root.key", "\n".join(lines))
    site.bridge.start()


def move(one: Greenhouse, number: int) -> None:
    """kubectl patch, and what `boardlet flash` writes."""
    patch = {"spec": {"credential": {"keyNumber": number, "revokedKeyNumber": number - 1}}}
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", json.dumps(patch))
    one.board.kill()
    config = json.loads((one.board.flash / "config.json").read_text())
    config |= {"key": board_key(NEW.key, one.board_id, number).hex(), "key_number": number}
    (one.board.flash / "config.json").write_text(json.dumps(config))
    one.board.start()


def left(site: Site) -> tuple[float, ...]:
    """How many boards follow from the old key, the new one, and one that was removed."""
    return tuple(site.bridge.metric(f'boardlet_boards_by_root_key{{root="{root}"}}') for root in (1, 100, 0))


def test_the_root_key_is_replaced_without_an_outage(site: Site) -> None:
    """Boards work under both keys, each says which; after the removal the old key is refused, who moved is Ready."""
    moved, forgotten = greenhouse(site, "g1", "k7m2q9xa"), greenhouse(site, "g2", "p4w8z1vc")
    old, new = f"1 {site.root.hex()}", f"{NEW.first} {NEW.key.hex()}"
    for one in (moved, forgotten):
        one.synced()
    epoch = forgotten.object["status"]["session"]["epoch"]

    restart(site, new, old)
    assert left(site) == (2, 0, 0)
    for one in (moved, forgotten):
        assert until(lambda one=one: "number 100" in json.dumps(one.synced()["status"]["conditions"]))  # type: ignore[misc]
    move(moved, NEW.first)
    # Ready until it was flashed, and soon after.
    moved.cluster.until("board", moved.name, lambda b: b["status"].get("board", {}).get("keyNumber") == NEW.first, 30)
    moved.edit(led=True)
    assert "root key" not in json.dumps(moved.synced()["status"]["conditions"])
    assert left(site) == (1, 1, 0)
    wide = site.cluster.run("get", "boards", "-o", "wide").stdout.split("\n")
    at = wide[0].index("KEY")
    assert [line[at:].split()[0] for line in wide[1:3]] == ["100", "1"]
    stolen = KeyRing(site.root, bytes(16))
    for number in (1, 99, 100, 101):
        assert not logs_in(site.broker.port, moved.board_id, stolen.broker_password(moved.board_id, number))
    assert forgotten.synced()["status"]["session"]["epoch"] == epoch, "it was never disconnected"

    before = moved.object["status"]
    restart(site, old)  # the file went back
    own = KeyRing.of((NEW,), bytes(16)).broker_password(moved.board_id, NEW.first)
    assert until(lambda: not logs_in(site.broker.port, moved.board_id, own))
    forgotten.synced()
    moved.until("Ready", "Unknown")
    restart(site, new, old)
    after = moved.synced(moved.edit(led=True))["status"]
    assert after["session"] != before["session"]
    assert (after["board"]["keyNumber"], after["board"]["bootCount"]) == (NEW.first, before["board"]["bootCount"])

    restart(site, new)
    forgotten.until("Ready", "False", "Revoked")
    assert "root key" in json.dumps(forgotten.object["status"]["conditions"])
    assert until(lambda: not logs_in(site.broker.port, forgotten.board_id, stolen.broker_password(forgotten.board_id)))
    assert left(site) == (0, 1, 1)
    moved.edit(led=False)
    moved.synced()
    move(forgotten, NEW.first)
    forgotten.cluster.until("board", "g2", lambda b: b["status"].get("board", {}).get("keyNumber") == NEW.first, 30)
    forgotten.synced()
    assert left(site) == (0, 2, 0)
