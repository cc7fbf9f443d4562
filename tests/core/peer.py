"""The other end for tests of the core: crafts what a board, a broker and an API server would send, byte by byte."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
from boardlet_bridge.core.board import FINALIZER, new_board, recorded_key, step
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.event import (
    BrokerDown,
    BrokerUp,
    Effect,
    Event,
    Message,
    ModelSeen,
    ObjectSeen,
    Publish,
    Refused,
    SetFinalizer,
    Tick,
    Wake,
    WriteStatus,
)
from boardlet_bridge.core.model import Model, compile_model
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.state import Limits
from boardlet_bridge.core.status import snapshot
from boardlet_bridge.core.verdict import conditions
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from boardlet_wire.topic import topic

BOARD_ID = "k7m2q9xa"
ROOT = bytes(range(32))
RING = KeyRing(ROOT, b"s" * 16)
UID = "11111111-2222-4333-8444-555555555555"
GREENHOUSE = {
    "properties": [
        {"name": "led", "index": 0, "type": "Boolean", "access": "ReadWrite", "default": False},
        {
            "name": "target",
            "index": 1,
            "type": "Number",
            "access": "ReadWrite",
            "minimum": 5,
            "maximum": 35,
            "default": 20,
        },
        {"name": "temp", "index": 2, "type": "Number", "access": "ReadOnly", "driver": {"type": "Adc", "pins": [34]}},
        {"name": "label", "index": 3, "type": "String", "access": "ReadWrite", "maxLength": 8},
    ]
}


def model(spec: dict[str, Any] | None = None) -> Model:
    return compile_model("greenhouse", spec or GREENHOUSE)


@dataclass
class BoardSide:
    """A board's bytes: sealed with its key, counted in its epoch; it applies whatever it is told to have applied."""

    key: bytes = b""  # another one than that of the number
    number: int = 1
    epoch: bytes = b"epoch--1"
    sequence: int = 0
    applied: list[Any] | None = None
    model: bytes = b""
    values: dict[int, Any] = field(default_factory=dict)

    def half(self, direction: bytes) -> bytes:
        return seal.half_key(self.key or board_key(ROOT, BOARD_ID, self.number), direction)

    def _close(self, letter: str, body: dict[int, Any], context: bytes) -> Message:
        raw = cbor2.dumps(body)
        half = self.half(seal.UP)
        return Message(letter, raw + seal.tag(half, topic(BOARD_ID, letter), context, raw, seal.UP_TAG))

    def here(self, **more: Any) -> Message:
        body: dict[int, Any] = {0: 1, 1: 1, 2: self.epoch, 3: self.number, 4: 1, 5: 1, 6: "0.1.0", 7: "linux", 11: 1024}
        if self.model:
            body[12] = self.model
        if self.applied:
            body[14] = self.applied
        body.update({int(k[1:]): v for k, v in more.items()})
        return self._close("s", body, b"")

    def gone(self, epoch: bytes | None = None) -> Message:
        return self._close("s", {0: 1, 1: 0, 2: epoch or self.epoch, 3: self.number}, b"")

    def asleep(self, seconds: int | None = 600, epoch: bytes | None = None) -> Message:
        body: dict[int, Any] = {0: 1, 1: 2, 2: epoch or self.epoch, 3: self.number}
        return self._close("s", body if seconds is None else {**body, 18: seconds}, b"")

    def report(self, body: dict[int, Any] | None = None) -> Message:
        sent = {-1: self.sequence, **(body or {})}
        self.sequence += 1
        return self._close("r", sent, self.epoch)

    def full(self, nonce: bytes, **more: Any) -> Message:
        body = {-2: self.applied or 0, -4: 12, -5: nonce, -7: {}, -8: 0, **self.values}
        body.update({-int(k[1:]): v for k, v in more.items()})
        return self.report(body)

    def want(self, digest: bytes, offset: int, length: int) -> Message:
        return self._close("w", {0: digest, 1: offset, 2: length}, self.epoch)

    def open(self, letter: str, payload: bytes, context: bytes = b"") -> dict[int, Any]:
        """Verify and decode what the bridge published."""
        half = self.half(seal.DOWN)
        body = seal.verify(half, topic(BOARD_ID, letter), context, payload, seal.DOWN_TAG)
        assert body is not None, "the bridge's seal is wrong"
        decoded = cbor2.loads(bytes(body))
        assert isinstance(decoded, dict)
        return decoded

    def apply(self, payload: bytes) -> None:
        """Take a desired as a healthy board would, without reporting it."""
        fields = self.open("d", payload)
        state = cbor2.loads(fields[3])
        self.applied = [fields[0], fields[1], seal.digest(fields[3]), fields[2]]
        self.model = state[-1]
        self.values.update({k: v for k, v in state.items() if k >= 0})


def _documented() -> set[tuple[str, str, str]]:
    # Type, status and reason of every row of docs/status.md.
    lines = (Path(__file__).parents[2] / "docs/status.md").read_text().partition("\n## ")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines() if line.startswith("|")
    ]
    found = {(row[0], row[1], row[2]) for row in rows[2:]}
    connections = {reason for type_, status, reason in found if type_ == "Connected"}
    obstacles = {reason for type_, _, reason in found if type_ == "Synced"}
    found |= {("Synced", "Unknown", reason) for reason in connections | obstacles}
    return found | {("Healthy", "Unknown", reason) for reason in connections}


DOCUMENTED = _documented()


def check(status: dict[str, Any]) -> None:
    """What holds of every status that is ever written: docs/status.md has it, and rule 6 of docs/design.md."""
    found = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    for type_, (truth, reason) in found.items():
        assert type_ == "Ready" or (type_, truth, reason) in DOCUMENTED, (type_, truth, reason)
    parts = [found[type_] for type_ in ("Connected", "Synced", "Healthy")]
    first = [part for truth in ("False", "Unknown") for part in parts if part[0] == truth]
    assert found["Ready"] == (first[0] if first else ("True", "Synced"))
    if found["Connected"][0] != "True":
        assert found["Synced"][0] == found["Healthy"][0] == "Unknown", "rule 6"


@dataclass
class World:
    """One board's core with a broker that retains, an API server that stores, and a clock that tests move."""

    now: float = 100.0
    retained: dict[str, bytes] = field(default_factory=dict)
    object: dict[str, Any] = field(default_factory=dict)
    published: list[Publish] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    urgent: int = 0
    writes: int = 0
    limits: Limits = field(default_factory=Limits)
    side: BoardSide = field(default_factory=BoardSide)
    broker_honest: bool = True
    finalizers_refused: bool = False

    def __post_init__(self) -> None:
        self.object = self.object or {
            "metadata": {"name": "g", "namespace": "default", "uid": UID, "generation": 1, "finalizers": [FINALIZER]},
            "spec": {"boardID": BOARD_ID, "modelRef": {"name": "greenhouse"}, "properties": {"led": True}},
            "status": {},
        }
        self.start_bridge()

    def start_bridge(self) -> None:
        """A new bridge process: nothing in memory, no broker yet."""
        self.board = new_board(BOARD_ID, RING, self.limits, copy.deepcopy(self.object))
        self.wakes: list[float] = []
        self.send(ModelSeen(model()), ObjectSeen(copy.deepcopy(self.object)))

    def connect_broker(self) -> None:
        for letter, payload in sorted(self.retained.items()):
            self.send(Message(letter, payload))
        self.send(BrokerUp())

    def lose_broker(self) -> None:
        self.send(BrokerDown("test"))

    def send(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, Message) and event.letter == "s":
                self.retained["s"] = event.payload
            effects = step(self.board, event, self.now)
            # Whatever may be skipped where nothing can have changed: what is settled is what follows from the state.
            assert not self.board.settled or self.board.shown == conditions(self.board)
            for effect in effects:
                self._take(effect)

    def _take(self, effect: Effect) -> None:
        match effect:
            case Publish(letter=letter, payload=payload, retain=retain):
                self.published.append(effect)
                if retain and self.broker_honest:
                    self.retained[letter] = payload
                    self.send(Message(letter, payload))
            case WriteStatus(urgent=urgent):
                self.urgent += urgent
                self.write()
            case SetFinalizer(present=present) if not self.finalizers_refused:
                self.object["metadata"]["finalizers"] = [FINALIZER] if present else []
                self.send(ObjectSeen(copy.deepcopy(self.object)))
            case Refused(cause=cause):
                self.refused.append(cause)
            case Notice():
                self.notices.append(effect)
            case Wake(at=at):
                self.wakes.append(at)

    def write(self) -> None:
        status = snapshot(self.board, self.object["status"], f"t{self.now:g}")
        check(status)
        if status != self.object["status"]:
            self.writes += 1
            before, self.object["status"] = recorded_key(self.object), status
            if recorded_key(self.object) != before:
                self.send(ObjectSeen(copy.deepcopy(self.object)))  # of our own echo this alone moves the core

    def edit(self, **properties: Any) -> None:
        """kubectl patch of spec.properties."""
        self.object["spec"]["properties"] = self.object["spec"]["properties"] | properties
        self.touch()

    def touch(self) -> None:
        self.object["metadata"]["generation"] += 1
        self.send(ObjectSeen(copy.deepcopy(self.object)))

    def wait(self, seconds: float) -> None:
        """Time passes; what was asked to be woken is."""
        until = self.now + seconds
        while due := [at for at in self.wakes if at <= until]:
            self.now = max(self.now, min(due))
            self.wakes = [at for at in self.wakes if at > self.now]
            self.send(Tick())
        self.now = until

    def join(self, **birth: Any) -> None:
        """The board comes up with what the mailbox holds and answers the bridge's question."""
        self.side.epoch = bytes([self.side.epoch[0] + 1]) + self.side.epoch[1:]
        self.side.sequence = 0
        if self.retained.get("d"):
            self.side.apply(self.retained["d"])
        self.send(self.side.here(**birth))
        self.answer()

    def answer(self) -> None:
        self.send(self.side.full(self.nonce()))

    def nonce(self) -> bytes:
        """Of the bridge's latest question."""
        return bytes(self.side.open("c", self.last("c").payload)[0])

    def operation(self) -> int:
        """What the bridge's latest question asks for."""
        return int(self.side.open("c", self.last("c").payload)[1])

    def last(self, letter: str) -> Publish:
        return [p for p in self.published if p.letter == letter][-1]

    def count(self, letter: str) -> int:
        return len([p for p in self.published if p.letter == letter])

    def ack(self) -> None:
        """The board takes the latest desired and says so in one report."""
        before = dict(self.side.values)
        self.side.apply(self.last("d").payload)
        changed = {k: v for k, v in self.side.values.items() if before.get(k) != v}
        self.send(self.side.report({-2: self.side.applied, **changed}))

    def happened(self) -> list[str]:
        """What has been told since the last call."""
        told = [notice.happening for notice in self.notices]
        self.notices.clear()
        return told

    def condition(self, type_: str) -> tuple[str, str]:
        found = {c["type"]: c for c in self.object["status"]["conditions"]}[type_]
        return found["status"], found["reason"]

    def revision(self) -> int:
        return int(self.side.open("d", self.retained["d"])[1])

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.object["status"])


def ready(**kwargs: Any) -> World:
    """A world in which the board runs generation 1."""
    world = World(**kwargs)
    world.connect_broker()
    world.join()
    assert world.condition("Ready") == ("True", "Synced"), world.status
    return world
