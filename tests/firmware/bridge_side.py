"""The bridge's half of the protocol in a few lines, for tests of the board's half against a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cbor2
import paho.mqtt.client as paho
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.model import Model, compile_model
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from boardlet_wire.topic import topic
from broker import Broker
from broker.access import BRIDGE

ROOT = bytes(range(32))
BOARD_ID = "k7m2q9xa"
UID = b"\x01\x02\x03\x04\x05\x06"
WAIT_S = 30.0
MODEL = compile_model(
    "greenhouse",
    {
        "properties": [
            {
                "name": "led",
                "index": 0,
                "type": "Boolean",
                "access": "ReadWrite",
                "driver": {"type": "GpioOut", "pins": [2]},
            },
            {
                "name": "target",
                "index": 1,
                "type": "Number",
                "access": "ReadWrite",
                "minimum": 5,
                "maximum": 35,
            },
            {
                "name": "temp",
                "index": 2,
                "type": "Number",
                "access": "ReadOnly",
                "driver": {"type": "Adc", "pins": [34], "scale": 0.5, "sampleMilliseconds": 20},
            },
            {"name": "label", "index": 3, "type": "String", "access": "ReadWrite", "maxLength": 8},
            {
                "name": "broken",
                "index": 4,
                "type": "Boolean",
                "access": "ReadOnly",
                "driver": {"type": "GpioIn", "pins": [4], "pull": "Up"},
            },
        ]
    },
)


def config(broker: Broker, **more: object) -> dict[str, object]:
    """What `boardlet flash` writes on the board."""
    key = board_key(ROOT, BOARD_ID, 1)
    return {
        "id": BOARD_ID,
        "key": key.hex(),
        "key_number": 1,
        "host": "127.0.0.1",
        "port": broker.port,
        "proven_s": 1,
        "stable_s": 1,
        **more,
    }


def admit(broker: Broker) -> None:
    """Give the broker the credentials of bridge and board."""
    broker.users[BRIDGE] = "secret"
    broker.users[BOARD_ID] = seal.half_key(board_key(ROOT, BOARD_ID, 1), seal.PASSWORD).hex()[:32]


class Peer:
    """A connection that speaks as the bridge to one board, and keeps what the board says."""

    def __init__(self, broker: Broker) -> None:
        self.keys = KeyRing(ROOT, bytes(16)).board(BOARD_ID)
        self.sessions: list[dict[int, Any]] = []
        self.reports: list[dict[int, Any]] = []
        self.sizes: list[tuple[str, int]] = []
        self.wants = 0
        self.epoch = b""
        self.revision = 0
        self.serve = True
        self.models = {MODEL.digest: MODEL.encoded}
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="boardlet-bridge-test")
        self.paho.username_pw_set(BRIDGE, "secret")
        self.paho.on_message = self._on_message
        subscribed: list[int] = []
        self.paho.on_subscribe = lambda *_: subscribed.append(1)
        self.paho.on_connect = lambda c, *_: c.subscribe([(topic(BOARD_ID, letter), 1) for letter in "srw"])
        self.paho.connect("127.0.0.1", broker.port)
        self.until(lambda: bool(subscribed))

    def close(self) -> None:
        self.paho.disconnect()
        # paho closes these in its finalizer, which comes too late: a warning about them would fail another test.
        self.paho._reset_sockets()

    def until(self, true: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + wait_s
        while not true():
            assert time.monotonic() < deadline, f"sessions {self.sessions[-2:]}, reports {self.reports[-3:]}"
            self.paho.loop(0.02)

    def publish(self, letter: str, payload: bytes, retain: bool = False) -> None:
        self.paho.publish(topic(BOARD_ID, letter), payload, qos=1, retain=retain)

    def send(self, letter: str, fields: dict[int, Any], retain: bool = False) -> None:
        """Seal and publish a body."""
        self.publish(letter, self.keys.close(letter, cbor2.dumps(fields), self.epoch), retain)

    def desire(
        self, values: dict[int, Any], revision: int = 0, generation: int = 1, model: bytes = MODEL.digest
    ) -> int:
        """Publish a desired of the next revision, or of this one, and return it."""
        self.revision = revision or self.revision + 1
        state = cbor2.dumps({-1: model, **values})
        self.send("d", {0: UID, 1: self.revision, 2: generation, 3: state}, retain=True)
        return self.revision

    def adopt(self, model: Model, values: dict[int, Any]) -> int:
        """Let the board become another model with these values; returns the revision once it reports in a new epoch."""
        births = len([s for s in self.sessions if s[1] == 1])
        self.models[model.digest] = model.encoded
        revision = self.desire(values, model=model.digest)
        self.here(births + 1)
        return revision

    def ask(self, operation: int = 0, nonce: bytes = b"12345678") -> None:
        """Command 0 or 1."""
        self.send("c", {0: nonce, 1: operation})

    def full(self, nonce: bytes = b"12345678") -> dict[int, Any]:
        """Ask for everything and return the answer."""
        seen = len(self.reports)
        self.ask(0, nonce)
        self.until(lambda: any(r.get(-5) == nonce for r in self.reports[seen:]))
        return next(r for r in self.reports[seen:] if r.get(-5) == nonce)

    def applied(self, revision: int, wait_s: float = WAIT_S) -> None:
        """Wait until the board says that it applied this revision."""
        self.until(lambda: any(_revision(r.get(-2)) == revision for r in self.reports), wait_s)

    def here(self, count: int = 1) -> dict[int, Any]:
        """The latest birth, once there have been `count`."""
        self.until(lambda: len([s for s in self.sessions if s[1] == 1]) >= count)
        return [s for s in self.sessions if s[1] == 1][-1]

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        letter, payload = message.topic[-1], bytes(message.payload)
        if not payload:
            return
        body = self.keys.open(letter, payload, self.epoch)
        if body is None:
            return  # of an epoch before this peer listened
        fields = cbor2.loads(body)
        self.sizes.append((letter, len(payload)))
        if letter == "s":
            self.sessions.append(fields)
            self.epoch = fields[2]
        elif letter == "r":
            self.reports.append(fields)
        else:
            self.wants += 1
            encoded = self.models.get(fields[0])
            if self.serve and encoded:
                chunk = encoded[fields[1] : fields[1] + fields[2]]
                self.send("f", {0: fields[0], 1: fields[1], 2: len(encoded), 3: chunk})


def _revision(applied: Any) -> int | None:
    return applied[1] if isinstance(applied, list) else applied
