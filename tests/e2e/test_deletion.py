"""What stays at the broker of a Board that was deleted: nothing, whoever was away; and never by mere absence."""

from __future__ import annotations

import contextlib
import json
import queue
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from boardlet_cli.cluster import KubectlFailed
from boardlet_cli.site import Site
from boardlet_wire.topic import topic
from broker.access import BRIDGE
from greenhouse import LED, Greenhouse, create


@contextlib.contextmanager
def listener(site: Site) -> Iterator[tuple[paho.Client, queue.Queue[paho.MQTTMessage]]]:
    """Somebody who may read what the bridge may."""
    heard: queue.Queue[paho.MQTTMessage] = queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="listener")
    client.username_pw_set(BRIDGE, site.broker.users[BRIDGE])
    client.on_message = lambda _client, _userdata, message: heard.put(message)
    client.connect("127.0.0.1", site.broker.port)
    client.loop_start()
    try:
        yield client, heard
    finally:
        client.disconnect()
        client.loop_stop()


def retained(site: Site, board_id: str) -> set[str]:
    """The letters under which the broker retains something of this board."""
    with listener(site) as (client, heard):
        client.subscribe([(topic(board_id, letter), 1) for letter in "ds"])
        # What is retained comes before what is published now.
        end = topic("endofall", "s")
        client.subscribe(end, 1)
        client.publish(end, b"end", qos=1)
        found: set[str] = set()
        while (message := heard.get(timeout=10)).topic != end:
            found |= {message.topic[-1]} if message.payload else set()
        return found


def remove_by_force(one: Greenhouse) -> None:
    one.cluster.run("delete", "board", one.name, "--wait=false")
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)
    with pytest.raises(KubectlFailed, match="not found"):
        one.object  # noqa: B018


def test_deleted_while_the_bridge_was_away(one: Greenhouse) -> None:
    """A Board deleted without a bridge waits for one; then object and the broker's memory are gone."""
    assert retained(one.site, one.board_id) == {"d", "s"}
    one.site.bridge.kill()
    one.cluster.run("delete", "board", one.name, "--wait=false")
    assert one.object["metadata"]["deletionTimestamp"]
    one.site.bridge.start()
    one.cluster.run("wait", "--for=delete", f"board/{one.name}", "--timeout=30s")
    assert retained(one.site, one.board_id) == set()


def test_deleted_while_its_board_was_asleep_or_away(one: Greenhouse) -> None:
    """The retained will of a board that is gone is cleared as well; the broker remembers nothing."""
    one.board.kill()
    one.until("Connected", "False", "Gone")
    one.cluster.run("delete", "board", one.name, "--timeout=30s")
    assert retained(one.site, one.board_id) == set()


def test_removed_by_force_while_the_bridge_was_away(one: Greenhouse) -> None:
    """A Board whose finalizer was taken off by hand leaves its mailbox: the bridge names it, keeps it, and its board
    goes on; creating a Board with the id and deleting it clears it, as docs/operations.md says."""
    site = one.site
    one.edit(led=True)
    one.synced()
    site.bridge.kill()
    remove_by_force(one)
    site.bridge.start()
    site.bridge.process.wait_until(lambda: site.bridge.metric("boardlet_orphan_mailboxes") == 1, 30)
    assert one.board_id in site.bridge.log
    assert retained(site, one.board_id) == {"d", "s"}
    one.board.kill()
    one.board.start()  # it takes its mailbox as before
    site.bridge.process.wait_until(lambda: one.board.pin(LED) == 1, 30)
    create(one)
    one.synced()
    assert one.board.pin(LED) == 0
    one.cluster.run("delete", "board", one.name, "--timeout=30s")
    assert retained(site, one.board_id) == set()
    assert site.bridge.metric("boardlet_orphan_mailboxes") == 0


def test_removed_by_force_under_a_slow_bridge(one: Greenhouse) -> None:
    """A bridge that sees a deletion only when the object is gone clears the mailbox all the same: it was told so."""
    site = one.site
    site.bridge.process.pause()
    try:
        remove_by_force(one)
    finally:
        site.bridge.process.resume()
    site.bridge.process.wait_until(lambda: retained(site, one.board_id) == set(), 30)
    assert site.bridge.metric("boardlet_orphan_mailboxes") == 0
    create(one, properties={"led": True})
    one.synced()
    assert one.board.pin(LED) == 1


def test_created_again_while_the_bridge_was_away(one: Greenhouse) -> None:
    """A Board removed and created anew without a bridge is another object, whose spec counts from the start."""
    for led in (True, False, True):
        one.edit(led=led)
        before = one.synced()["status"]
    one.site.bridge.kill()
    remove_by_force(one)
    create(one, properties={"led": False})
    one.site.bridge.start()
    status = one.synced()["status"]
    assert one.board.pin(LED) == 0
    assert status["observedGeneration"] == 1
    assert status["desired"]["revision"] > before["desired"]["revision"]
    assert "Restored" not in json.dumps(status["conditions"])
