"""Rotation over the air end to end: real board, broker, bridge and API server; the edit is all that a person does."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boardlet_wire.keys import board_key
from broker.access import replace
from fakes.login import logs_in, until
from greenhouse import LED, LIGHT, QUICK, SAMPLES, WAIT_S, Greenhouse, create

ID = "k7m2q9xa"
NEW = secrets.token_bytes(32)


@pytest.fixture
def site(request: pytest.FixtureRequest, cluster: Cluster, make_site: Callable[..., Site]) -> Site:
    """A site whose bridge keeps the broker's users, in its files or by its plugin."""
    dynamic = getattr(request, "param", "files") == "dynamic"
    made = make_site(credentials=not dynamic, dynamic=dynamic)
    if not made.broker.kept_by_bridge:
        pytest.skip("the files are mosquitto's")
    return made


def password(site: Site, number: int, root: bytes = b"", board_id: str = ID) -> str:
    return KeyRing(root or site.root, bytes(16)).broker_password(board_id, number)


def rotate(one: Greenhouse, number: int) -> None:
    """All that the user does."""
    patch = {"spec": {"credential": {"keyNumber": number, "rotation": "OverTheAir"}}}
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", json.dumps(patch))


def rotated(one: Greenhouse, number: int) -> dict[str, Any]:
    """The object once the board has spoken under this key and runs what is asked; nothing is under way any more."""

    def true(obj: dict[str, Any]) -> bool:
        types = {c["type"]: c["status"] for c in obj["status"]["conditions"]}
        spoken = obj["status"]["board"]["keyNumber"] == number
        return spoken and types["Ready"] == "True" and "Rotating" not in types

    obj = one.cluster.until("board", one.name, true, WAIT_S)
    assert "MessagesRefused" not in json.dumps(obj["status"]), "nothing of it looked like an attack"
    return obj


def config(one: Greenhouse) -> dict[str, object]:
    found: dict[str, object] = json.loads((one.board.flash / "config.json").read_text())
    return found


def holds_only(one: Greenhouse, key: bytes) -> bool:
    """Whether the board has this key, and no other."""
    # In this order: while it holds two it may be writing the file.
    return not (one.board.flash / "keys").exists() and config(one)["key"] == key.hex()


def ready(site: Site, board_id: str = ID, name: str = "g1") -> Greenhouse:
    """A board that is Ready; powered once it is let in, because one that was refused is in no hurry."""
    one = Greenhouse(site, site.cluster, name, site.add_board(board_id, config=QUICK), board_id)
    one.board.set_adc(LIGHT, 100)
    site.cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    create(one)
    assert until(lambda: logs_in(site.broker.port, board_id, password(site, 1, board_id=board_id)))
    one.board.start()
    one.synced()
    return one


@pytest.mark.parametrize("site", ["files", "dynamic"], indirect=True)
def test_a_board_gets_its_next_key_while_it_is_connected(site: Site) -> None:
    """From one edit: the old password lets nobody in any more, the board does not boot, its pins and edits go on."""
    one = ready(site)
    one.edit(led=True)
    boots = one.synced()["status"]["board"]["bootCount"]
    rotate(one, 2)
    assert rotated(one, 2)["status"]["board"]["bootCount"] == boots
    assert one.board.pin(LED) == 1
    assert until(lambda: holds_only(one, board_key(site.root, ID, 2)))
    assert not logs_in(site.broker.port, ID, password(site, 1))
    one.edit(led=False)
    one.synced()
    patch = '{"spec":{"credential":{"revokedKeyNumber":1}}}'  # the object remembers it from now on
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", patch)
    one.synced()
    assert one.board.pin(LED) == 0


def test_a_board_that_is_away_is_waited_for(site: Site) -> None:
    """Its old key lets it in when it is back; cut off with both keys, and the bridge too, it comes back with one."""
    one = ready(site)
    assert until(lambda: any((one.board.flash / "state").glob("good?"))), "two cuts of what is being tried revert it"
    one.board.kill()
    one.until("Connected", "False")
    rotate(one, 2)
    one.until("Rotating", "True", "Pending")
    site.bridge.kill()
    site.bridge.start()
    assert not logs_in(site.broker.port, ID, password(site, 2))
    one.board.start()
    assert until(lambda: (one.board.flash / "keys/nexta").exists())
    site.bridge.kill()
    one.board.kill()
    site.bridge.start()
    one.board.start()
    rotated(one, 2)
    assert until(lambda: holds_only(one, board_key(site.root, ID, 2)))
    assert not logs_in(site.broker.port, ID, password(site, 1))


def test_a_board_that_sleeps_gets_it_in_a_turn(site: Site) -> None:
    """What it hears first when it wakes is its next key; a turn or two later it has that alone, and sleeps on."""
    one = ready(site)
    patch = '{"spec":{"settings":{"sleepSeconds":1}}}'
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", patch)
    one.until("Connected", "True", "Asleep")
    rotate(one, 2)
    rotated(one, 2)
    assert until(lambda: holds_only(one, board_key(site.root, ID, 2)), WAIT_S)
    one.until("Connected", "True", "Asleep")
    assert not logs_in(site.broker.port, ID, password(site, 1))


def test_the_root_key_is_replaced_over_the_air(site: Site) -> None:
    """The runbook without a bench: each board is given a key of the new root, and the old one is taken away."""
    one = ready(site)
    site.bridge.stop()
    replace(site.folder / "root.key", f"100 {NEW.hex()}\n1 {site.root.hex()}")
    site.bridge.start()
    rotate(one, 100)
    rotated(one, 100)
    assert until(lambda: holds_only(one, board_key(NEW, ID, 100)))
    assert site.bridge.metric('boardlet_boards_by_root_key{root="1"}') == 0
    site.bridge.stop()
    replace(site.folder / "root.key", f"100 {NEW.hex()}")
    site.bridge.start()
    one.edit(led=True)
    one.synced()
    assert not logs_in(site.broker.port, ID, password(site, 100))
    assert logs_in(site.broker.port, ID, password(site, 100, NEW))
