"""The engine: events from broker, store and replicas to the core's steps, and its effects back out.

It owns no decision: it finds the board that an event belongs to, lets the core step it, and carries out the effects.
Everything runs on one asyncio loop, so a step is never interrupted. It knows every Board object, and serves those whose
id falls into the buckets that it holds (runtime/shard.py): of the others nothing is sent, written or remembered.

What is known is in registry.py, what becomes of objects in object.py, a step in step.py, what the status writer gets in
snapshot.py, what metrics read in census.py. This is what the rest of the bridge calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import structlog
from boardlet_wire.names import DESIRED, SESSION
from boardlet_wire.topic import bucket

from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.event import BrokerDown, BrokerUp, Message
from boardlet_bridge.core.state import Limits
from boardlet_bridge.core.store import Change, Key
from boardlet_bridge.runtime import snapshot
from boardlet_bridge.runtime.census import Census
from boardlet_bridge.runtime.leftover import MAX_SESSION_BYTES
from boardlet_bridge.runtime.object import Objects
from boardlet_bridge.runtime.outlet import Outlet
from boardlet_bridge.runtime.registry import BOARDS, MODELS, Name, Registry
from boardlet_bridge.runtime.shard import BUCKETS
from boardlet_bridge.runtime.step import Steps

RETAINED: Final = SESSION + DESIRED

log = structlog.get_logger("engine")


class Engine:
    """All boards of this bridge; the handler of the MQTT session, and the store's sink."""

    def __init__(self, ring: KeyRing, limits: Limits, outlet: Outlet) -> None:
        self._outlet = outlet
        self.registry = Registry(ring, limits)
        self.census = Census(self.registry)
        self.steps = Steps(self.registry, self.census, outlet)
        self._objects = Objects(self.registry, self.steps, outlet)
        self.broker_reason = ""
        self._listed = False

    # From the other replicas
    def hold(self, buckets: Collection[str], *, fresh: bool = False) -> None:
        """Serve these too, as a bridge that starts; `fresh` where their objects have just been listed."""
        self.registry.held.update(buckets)
        for entry in self.registry.within(buckets):
            if entry.stale or not fresh:
                self._objects.begin_anew(entry)
        for name in self.registry.models.objects:
            if bucket("/".join(name)) in buckets:
                self._outlet.mark((MODELS, *name), True)

    def release(self, buckets: Collection[str]) -> None:
        """Serve these no more, and forget of their boards all but the objects."""
        self.registry.held.difference_update(buckets)
        self.registry.read.difference_update(buckets)
        self.registry.leftovers.drop(buckets)
        for entry in self.registry.within(buckets):
            self._objects.begin_anew(entry)

    def leave(self) -> None:
        """Hear and say no more; the last values that no other replica could ask for are marked to be written.

        A board that sleeps tells them in its next turn. And to who does not listen, every board would fall silent.
        """
        self.steps.alarm.stop()
        for entry in self.registry.within(self.registry.held):
            board, status = entry.board, entry.object.get("status") or {}
            if (board.asleep or (board.live and board.sleep_s)) and board.reported != (status.get("reported") or {}):
                self._outlet.mark((BOARDS, *entry.name), True)

    def may_send(self, topic: str, payload: bytes, retain: bool) -> bool:
        """Whether this may be sent by a replica that is not sure of its lease: no desired that it has minted since."""
        entry = self.registry.claims.owner(topic.split("/")[2])
        known = entry.sworn if entry else None
        return not retain or (known is not None and payload == known.payload)

    # From the broker
    def on_up(self, buckets: Collection[str] = BUCKETS) -> None:
        met, leftovers = self.registry.within(buckets), self.registry.leftovers
        log.info("broker is up", boards=len(met), buckets=len(buckets))
        self.broker_reason = ""
        self.registry.read.update(buckets)
        leftovers.tell(*sorted(name for name in leftovers.mailboxes if bucket(name) in buckets))
        for entry in met:
            self.steps.take(entry, BrokerUp())

    def on_down(self, reason: str) -> None:
        log.warning("broker is away", reason=reason)
        self.broker_reason = reason
        self.registry.read.clear()
        self.registry.leftovers.clear()
        for entry in list(self.registry.entries.values()):
            entry.said = b""
            self.steps.take(entry, BrokerDown(reason))

    def on_message(self, board_id: str, letter: str, topic: str, payload: bytes, retained: bool) -> None:
        registry = self.registry
        if topic[2:4] not in registry.held:
            return  # it was on its way when the bucket was lost
        self.census.received[letter] += 1
        if retained and letter not in RETAINED:
            # Nobody retains these but to have them read again at every start of a bridge.
            self._outlet.refused("retained")
            return
        entry = registry.claims.owner(board_id)
        if entry is not None:
            if letter == SESSION:
                entry.said = payload if len(payload) <= MAX_SESSION_BYTES else b""
            self.steps.take(entry, Message(letter, payload))
            return
        registry.leftovers.keep(board_id, letter, payload)
        if letter == SESSION and payload and self._listed:
            self._outlet.unknown_board(board_id)

    def on_warning(self, reason: str, message: str) -> None:
        log.warning(message, reason=reason)
        self._outlet.warned(reason)

    # From the store
    def on_listed(self) -> None:
        """All objects have been told once: who has none now is unknown."""
        self._listed = True

    def on_board(self, change: Change, obj: Mapping[str, Any]) -> None:
        self._objects.on_board(change, obj)

    def on_model(self, change: Change, obj: Mapping[str, Any]) -> None:
        self._objects.on_model(change, obj)

    def on_rewound(self) -> None:
        self._objects.on_rewound()

    def serves(self, obj: Mapping[str, Any]) -> bool:
        """Whether the Board is this replica's to serve."""
        return bucket(obj["spec"]["boardID"]) in self.registry.held

    def board_versions(self) -> dict[Name, str]:
        """The resourceVersion of every Board as last seen."""
        return {name: entry.object["metadata"]["resourceVersion"] for name, entry in self.registry.entries.items()}

    def model_versions(self) -> dict[Name, str]:
        """The resourceVersion of every BoardModel as last seen."""
        return {name: obj["metadata"]["resourceVersion"] for name, obj in self.registry.models.objects.items()}

    def snapshot(self, key: Key) -> dict[str, Any] | None:
        """The body of the status write that is due for a key now; None where nothing has to be written."""
        return snapshot.due(self.registry, key)

    def written(self, key: Key, obj: Mapping[str, Any]) -> None:
        """The object as the API server answered it after a write, or as it is where the write came too late."""
        if key[0] == MODELS:
            self.on_model("MODIFIED", obj)
        else:
            self.on_board("MODIFIED", obj)
