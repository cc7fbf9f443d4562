"""What the broker keeps in the mailboxes, read by a client that is neither bridge nor board."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cbor2
import paho.mqtt.client as paho
from boardlet_bridge.core.credential import KeyRing
from boardlet_cli.site import Site
from boardlet_wire.names import DesiredKey
from boardlet_wire.seal import digest
from boardlet_wire.topic import topic
from broker.access import BRIDGE

WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Mail:
    """One mailbox, opened."""

    revision: int
    digest: str
    values: Mapping[int, object]


def payloads(site: Site) -> dict[str, bytes]:
    """What is retained on every d, by topic; raises OSError while there is no broker."""
    got: dict[str, bytes] = {}
    end = f"b/-/{uuid.uuid4().hex}/d"  # no board's topic, and no bridge's
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"reader-{uuid.uuid4().hex[:8]}")
    client.username_pw_set(BRIDGE, site.broker.users[BRIDGE])
    client.on_message = lambda _c, _u, m: got.__setitem__(m.topic, m.payload)
    client.on_connect = lambda c, *_: c.subscribe([("b/+/+/d", 1), (end, 1)])
    client.on_subscribe = lambda c, *_: c.publish(end, b"?", qos=1)
    client.connect("127.0.0.1", site.broker.port)
    deadline = time.monotonic() + WAIT_S
    try:
        while end not in got:
            if client.loop(0.1) != paho.MQTT_ERR_SUCCESS or time.monotonic() > deadline:
                raise OSError("the broker ended the connection, or does not answer")
    finally:
        client.disconnect()
    return got


def read_all(site: Site, board_ids: Iterable[str]) -> dict[str, Mail]:
    """The mailboxes of these boards that hold something; raises OSError while there is no broker."""
    got = payloads(site)
    ring = KeyRing(site.root, bytes(16))
    return {
        board_id: _open(ring, board_id, payload) for board_id in board_ids if (payload := got.get(topic(board_id, "d")))
    }


def _open(ring: KeyRing, board_id: str, payload: bytes) -> Mail:
    body = ring.board(board_id).open_own("d", payload)
    if body is None:
        return Mail(0, "sealed by somebody else", {})
    try:
        fields = cbor2.loads(body)
        state = fields[DesiredKey.STATE]
        return Mail(fields[DesiredKey.REVISION], digest(state).hex(), cbor2.loads(state))
    except (cbor2.CBORDecodeError, LookupError, TypeError):
        return Mail(0, "sealed nonsense", {})
