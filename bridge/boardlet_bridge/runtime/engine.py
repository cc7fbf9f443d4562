"""The engine: events from broker and cluster to the core's steps, and its effects back out.

It owns no decision: it finds the board that an event belongs to, lets the core step it, and carries out the effects.
Everything runs on one asyncio loop, so a step is never interrupted. It knows every Board object, and serves those whose
id falls into the buckets that it holds (runtime/shard.py): of the others nothing is sent, written or remembered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog
from boardlet_wire.names import DESIRED, SESSION
from boardlet_wire.topic import bucket

from boardlet_bridge.core.board import new_board, recorded_key, stands, step
from boardlet_bridge.core.credential import FIRST_KEY_NUMBER, KeyRing
from boardlet_bridge.core.event import (
    BrokerDown,
    BrokerUp,
    ClaimSeen,
    DroppedByBoard,
    Effect,
    Event,
    Message,
    ObjectSeen,
    Publish,
    Refused,
    SetFinalizer,
    StatusSeen,
    Tick,
    Wake,
    WriteStatus,
)
from boardlet_bridge.core.model import Model
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.state import Board, Limits
from boardlet_bridge.core.status import model_snapshot, snapshot
from boardlet_bridge.core.store import Change, Key
from boardlet_bridge.runtime.alarm import Alarm
from boardlet_bridge.runtime.leftover import MAX_SESSION_BYTES, Leftovers
from boardlet_bridge.runtime.pace import Pace
from boardlet_bridge.runtime.registry import Claims, Entry, Models, Name, name_of
from boardlet_bridge.runtime.shard import BUCKETS

BOARDS: Final = "boards"
MODELS: Final = "boardmodels"
RETAINED: Final = SESSION + DESIRED
REFUSED_S: Final = 60.0  # whoever floods a topic must not flood the log: one line a board and cause in this time
# Conditions that somebody else wrote over are put right at once, but so often only: of two bridges that do not agree,
# each would write over the other's as fast as it can.
OVERWRITTEN_S: Final = 60.0

REWOUND: Final = "0"  # the resourceVersion of an object that has to be read anew; older than any other

log = structlog.get_logger("engine")


class Outlet(Protocol):
    """What the engine needs of the world."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None: ...
    def mark(self, key: Key, urgent: bool) -> None: ...
    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None: ...
    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...
    def now(self) -> float: ...
    def refused(self, cause: str) -> None: ...
    def unknown_board(self, board_id: str) -> None: ...
    def warned(self, reason: str) -> None: ...
    def doubt(self) -> None: ...
    def admit(self, board_id: str, number: int) -> None: ...
    def sure(self) -> bool: ...


@dataclass(slots=True)
class Engine:
    """All boards of this bridge; the handler of both the MQTT session and the watch."""

    ring: KeyRing
    limits: Limits
    outlet: Outlet
    entries: dict[Name, Entry] = field(default_factory=dict)
    models: Models = field(default_factory=Models)
    claims: Claims = field(default_factory=Claims)
    held: set[str] = field(default_factory=lambda: set(BUCKETS))
    """The buckets whose boards are served."""
    read: set[str] = field(default_factory=set)
    """Those of which everything that the broker retains has been read."""
    broker_reason: str = ""
    listed: bool = False
    leftovers: Leftovers = field(default_factory=Leftovers)
    received: Counter[str] = field(default_factory=Counter)
    """Messages of boards so far, by the letter of their topic."""
    dropped: Counter[str] = field(default_factory=Counter)
    """What boards say that they have dropped, by cause, since this bridge first heard each of them."""
    pace: Pace = field(default_factory=Pace)
    alarm: Alarm = field(init=False)

    def __post_init__(self) -> None:
        self.alarm = Alarm(self.outlet.call_at, self.outlet.now, self._tick)

    # From the other replicas
    def hold(self, buckets: Collection[str], *, fresh: bool = False) -> None:
        """Serve these too, as a bridge that starts; `fresh` where their objects have just been listed."""
        self.held.update(buckets)
        for entry in self._of(buckets):
            if entry.stale or not fresh:
                self._begin_anew(entry)
        for name in self.models.objects:
            if bucket("/".join(name)) in buckets:
                self.outlet.mark((MODELS, *name), True)

    def release(self, buckets: Collection[str]) -> None:
        """Serve these no more, and forget of their boards all but the objects."""
        self.held.difference_update(buckets)
        self.read.difference_update(buckets)
        self.leftovers.drop(buckets)
        for entry in self._of(buckets):
            self._begin_anew(entry)

    def leave(self) -> None:
        """Hear and say no more; the last values that no other replica could ask for are marked to be written.

        A board that sleeps tells them in its next turn. And to who does not listen, every board would fall silent.
        """
        self.alarm.stop()
        for entry in self._of(self.held):
            board, status = entry.board, entry.object.get("status") or {}
            if (board.asleep or (board.live and board.sleep_s)) and board.reported != (status.get("reported") or {}):
                self.outlet.mark((BOARDS, *entry.name), True)

    def _of(self, buckets: Collection[str]) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.bucket in buckets]

    def _begin_anew(self, entry: Entry) -> None:
        rival = entry.board.rival
        entry.board = new_board(entry.board.keys.board_id, self.ring, self.limits, entry.object)
        entry.sent = entry.sworn = None
        entry.stale, entry.said = False, b""
        for event in (self.models.seen(entry.model_ref), ClaimSeen(rival), ObjectSeen(entry.object)):
            self._step(entry, event)

    # From the broker
    def on_up(self, buckets: Collection[str] = BUCKETS) -> None:
        met = self._of(buckets)
        log.info("broker is up", boards=len(met), buckets=len(buckets))
        self.broker_reason = ""
        self.read.update(buckets)
        self.leftovers.tell(*sorted(name for name in self.leftovers.mailboxes if bucket(name) in buckets))
        for entry in met:
            self._step(entry, BrokerUp())

    def on_down(self, reason: str) -> None:
        log.warning("broker is away", reason=reason)
        self.broker_reason = reason
        self.read.clear()
        self.leftovers.clear()
        for entry in list(self.entries.values()):
            entry.said = b""
            self._step(entry, BrokerDown(reason))

    def on_message(self, board_id: str, letter: str, topic: str, payload: bytes, retained: bool) -> None:
        if topic[2:4] not in self.held:
            return  # it was on its way when the bucket was lost
        self.received[letter] += 1
        if retained and letter not in RETAINED:
            # Nobody retains these but to have them read again at every start of a bridge.
            self.outlet.refused("retained")
            return
        entry = self.claims.owner(board_id)
        if entry is not None:
            if letter == SESSION:
                entry.said = payload if len(payload) <= MAX_SESSION_BYTES else b""
            self._step(entry, Message(letter, payload))
            return
        self.leftovers.keep(board_id, letter, payload)
        if letter == SESSION and payload and self.listed:
            self.outlet.unknown_board(board_id)

    def on_warning(self, reason: str, message: str) -> None:
        log.warning(message, reason=reason)
        self.outlet.warned(reason)

    # From the cluster
    def on_model(self, change: Change, obj: Mapping[str, Any]) -> None:
        name = name_of(obj)
        if change == "DELETED":
            self.models.drop(name)
        else:
            before = self.models.objects.get(name, {})
            changed = self.models.put(obj)
            if changed or before.get("spec") != obj.get("spec"):
                self.outlet.mark((MODELS, *name), True)  # its status names the generation that it is about
            if not changed:
                return
        for entry in list(self.entries.values()):
            if entry.model_ref == name:
                self._step(entry, self.models.seen(name))

    def on_board(self, change: Change, obj: Mapping[str, Any]) -> None:
        name = name_of(obj)
        entry = self.entries.get(name)
        if change == "DELETED" or (entry and entry.uid != obj["metadata"]["uid"]):
            if entry is not None:
                self._forget(entry)
            entry = None
        if change == "DELETED":
            return
        if entry is None:
            self._meet(name, obj)
        elif not older(obj, entry.object):
            self._update(entry, obj)
        elif change == "ADDED":
            self.outlet.doubt()  # a list that is older than what is known: late, or the cluster was restored

    def on_rewound(self) -> None:
        """The cluster went back to an older state: its objects count as they are now, whatever was seen before."""
        log.warning("the cluster was restored from an older backup, all objects are read anew")
        for entry in self.entries.values():
            entry.object = {**entry.object, "metadata": {**entry.object["metadata"], "resourceVersion": REWOUND}}

    def on_listed(self) -> None:
        self.listed = True

    def _meet(self, name: Name, obj: Mapping[str, Any]) -> None:
        board_id = obj["spec"]["boardID"]
        entry = Entry(name, new_board(board_id, self.ring, self.limits, obj), obj, model_ref(obj))
        self.entries[name] = entry
        self.claims.add(entry)
        self._step(entry, self.models.seen(entry.model_ref))
        self._settle(board_id)
        if mailbox := self.leftovers.mailboxes.pop(board_id, None):
            self._step(entry, Message(DESIRED, mailbox))
        self._step(entry, ObjectSeen(obj))
        self._admit(board_id)  # one that lets nobody in may have been met after a younger claim that would
        if session := self.leftovers.sessions.pop(board_id, None):
            self._step(entry, Message(SESSION, session))
        if entry.bucket in self.read:
            self._step(entry, BrokerUp())

    def _update(self, entry: Entry, obj: Mapping[str, Any]) -> None:
        before, entry.object = entry.object, obj
        if model_ref(obj) != entry.model_ref:
            entry.model_ref = model_ref(obj)
            self._step(entry, self.models.seen(entry.model_ref))
        if decisive(obj) != decisive(before):
            self._step(entry, ObjectSeen(obj))
        foreign = obj.get("status") != before.get("status") and bare(obj.get("status")) != entry.sent
        if foreign or before["metadata"].get("resourceVersion") == REWOUND:
            # Somebody else wrote the status; the writer's next snapshot puts it right, and is dropped if it is.
            status = obj.get("status") or {}
            if entry.bucket not in self.held:
                entry.stale = True
            elif entry.board.shown:
                self.outlet.mark((BOARDS, *entry.name), not stands(entry.board, status) and self._mends(entry))
            else:
                self._step(entry, StatusSeen(status))

    def _mends(self, entry: Entry) -> bool:
        now = self.outlet.now()
        if now < entry.mended_at + OVERWRITTEN_S:
            return False
        entry.mended_at = now
        return True

    def _forget(self, entry: Entry) -> None:
        board = entry.board
        del self.entries[entry.name]
        self.claims.drop(entry)
        self._settle(board.keys.board_id)
        self._admit(board.keys.board_id)
        if self.claims.owner(board.keys.board_id) is not None:
            return
        # It may have fallen asleep after its object was deleted, and before we heard of that.
        self.leftovers.keep(board.keys.board_id, SESSION, entry.said)
        if board.mailbox and not board.deleting:
            # Its object went without our having seen a deletion: the cluster was restored to before it.
            self.leftovers.keep(board.keys.board_id, DESIRED, board.mailbox)
            self.leftovers.tell(board.keys.board_id)

    def _settle(self, board_id: str) -> None:
        for entry, rival in list(self.claims.rivals(board_id)):
            if entry.board.rival != rival:
                if rival:
                    log.warning("two Boards claim one id", board=board_id, served=rival, unserved="/".join(entry.name))
                self._step(entry, ClaimSeen(rival))

    def serves(self, obj: Mapping[str, Any]) -> bool:
        """Whether the Board is this replica's to serve."""
        return bucket(obj["spec"]["boardID"]) in self.held

    def proven_key(self, board_id: str) -> int:
        """The highest key number that a board of this id has spoken under, to this replica or by a status; or 0."""
        proven = 0
        for entry in self.claims.by_id.get(board_id, ()):
            proven = max(proven, entry.board.proven_key, recorded_key(entry.object))
        return proven

    def claimed(self, board_id: str, but: Name) -> bool:
        """Whether a Board but the one of this name has this id."""
        return any(entry.name != but for entry in self.claims.by_id.get(board_id, ()))

    @property
    def connected(self) -> int:
        """How many boards answer in their present session."""
        return sum(entry.board.live for entry in self.entries.values())

    @property
    def served(self) -> int:
        """How many Board objects are this replica's to serve."""
        return sum(entry.bucket in self.held for entry in self.entries.values())

    def conditions(self) -> Counter[tuple[str, str, str]]:
        """How many boards show each (type, status, reason)."""
        shown = (condition for entry in self._of(self.held) for condition in entry.board.shown)
        return Counter((condition.type, condition.status, condition.reason) for condition in shown)

    def measured(self) -> Iterator[tuple[Name, Board, Model]]:
        """The boards that are served and whose models have metrics, with those models; in the order they were met."""
        models = {name: m for name, m in self.models.compiled.items() if isinstance(m, Model) and m.metrics}
        if not models:
            return
        for name, entry in self.entries.items():
            if entry.bucket in self.held and (model := models.get(entry.model_ref)):
                yield name, entry.board, model

    def root_keys(self) -> Counter[int]:
        """How many boards have keys of each root key, by its first key number; 0: of one that was removed."""
        counted: Counter[int] = Counter({root.first: 0 for root in self.ring.roots})
        for entry in self.entries.values():
            root = entry.board.root_number
            if root or entry.board.rootless:
                counted[root] += 1
        return counted

    def board_versions(self) -> dict[Name, str]:
        """The resourceVersion of every Board as last seen."""
        return {name: entry.object["metadata"]["resourceVersion"] for name, entry in self.entries.items()}

    def model_versions(self) -> dict[Name, str]:
        """The resourceVersion of every BoardModel as last seen."""
        return {name: obj["metadata"]["resourceVersion"] for name, obj in self.models.objects.items()}

    # Steps and effects
    def _step(self, entry: Entry, event: Event) -> None:
        live, desired, now = entry.board.live, entry.board.desired, self.outlet.now()
        try:
            effects = step(entry.board, event, now)
        except Exception:
            # A bug of ours, said loudly. What brought it about may be retained or stored, and come at every start:
            # it must not take the other boards with it.
            log.exception("a step failed: report this", object="/".join(entry.name), event_type=type(event).__name__)
            self.outlet.refused("failed_step")
            return
        entry.edit = self.pace.follow(entry.board, live, desired, entry.edit, now)
        if entry.board.desired is not entry.sworn and self.outlet.sure():
            entry.sworn = entry.board.desired
        for effect in effects:
            self._carry_out(entry, effect)
        if entry.board.login != entry.login:
            entry.login = entry.board.login
            self._admit(entry.board.keys.board_id)

    def _admit(self, board_id: str) -> None:
        owner = self.claims.owner(board_id)
        self.outlet.admit(board_id, owner.board.login if owner else 0)

    def may_send(self, topic: str, payload: bytes, retain: bool) -> bool:
        """Whether this may be sent by a replica that is not sure of its lease: no desired that it has minted since."""
        entry = self.claims.owner(topic.split("/")[2])
        known = entry.sworn if entry else None
        return not retain or (known is not None and payload == known.payload)

    def _carry_out(self, entry: Entry, effect: Effect) -> None:
        if entry.bucket not in self.held and not isinstance(effect, Wake):
            entry.stale = True  # the core takes it for done
            return
        match effect:
            case Publish(letter=letter, payload=payload, retain=retain):
                self.outlet.publish(entry.board.keys.topic(letter), payload, retain=retain)
            case WriteStatus(urgent=urgent):
                self.outlet.mark((BOARDS, *entry.name), urgent)
            case Wake(at=at):
                self.alarm.at(at, entry.name)
            case SetFinalizer(present=present):
                self.outlet.set_finalizer(entry.object, present)
            case Notice():
                name, board_id = "/".join(entry.name), entry.board.keys.board_id
                log.debug("event", object=name, board=board_id, reason=effect.happening, message=effect.message)
                self.outlet.tell(entry.object, effect)
            case DroppedByBoard(cause=cause, count=count):
                self.dropped[cause] += count
            case Refused(cause=cause, detail=detail):
                self.outlet.refused(cause)
                self._say_refused(entry, cause, detail)

    def _say_refused(self, entry: Entry, cause: str, detail: str) -> None:
        now = self.outlet.now()
        if now >= entry.refused_at.get(cause, float("-inf")) + REFUSED_S:
            entry.refused_at[cause] = now
            name, board_id = "/".join(entry.name), entry.board.keys.board_id
            log.info("refused a message", object=name, board=board_id, cause=cause, detail=detail)

    def _tick(self, name: Name) -> None:
        entry = self.entries.get(name)
        if entry is not None:
            self._step(entry, Tick())

    # For the status writer
    def snapshot(self, key: Key) -> dict[str, Any] | None:
        """The body of the status write that is due for a key now; None where nothing has to be written."""
        kind, name = key[0], (key[1], key[2])
        entry = None
        if kind == MODELS:
            obj = self.models.objects.get(name)
            status = None if obj is None else model_snapshot(self.models.seen(name), obj, rfc3339())
        else:
            entry = self.entries.get(name)
            if entry is None or not entry.board.shown:
                return None  # a mark of before it was met; what it comes to show is marked then
            obj = entry.object
            status = snapshot(entry.board, entry.object.get("status") or {}, rfc3339())
        if obj is None or status is None or bare(status) == bare(obj.get("status")):
            return None
        if (entry.bucket if entry else bucket("/".join(name))) not in self.held:
            return None
        meta = obj["metadata"]
        if meta["resourceVersion"] == REWOUND:
            return None  # it is being read anew, and marked again then
        if entry is not None:
            entry.sent = bare(status)
        kept = {k: meta[k] for k in ("name", "namespace", "uid", "resourceVersion")}
        title = "BoardModel" if kind == MODELS else "Board"
        return {"apiVersion": "boardlet.dev/v1alpha1", "kind": title, "metadata": kept, "status": status}

    def written(self, key: Key, obj: Mapping[str, Any]) -> None:
        """The object as the API server answered it after a write, or as it is where the write came too late."""
        if key[0] == MODELS:
            self.on_model("MODIFIED", obj)
        else:
            self.on_board("MODIFIED", obj)


def bare(status: Mapping[str, Any] | None) -> dict[str, Any]:
    """A status without empty maps, which the API server puts in or leaves out as it likes."""
    return {name: value for name, value in (status or {}).items() if value != {}}


def model_ref(obj: Mapping[str, Any]) -> Name:
    return obj["metadata"]["namespace"], obj["spec"]["modelRef"]["name"]


def decisive(obj: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of an object can move the core; the rest, and nearly all of our own echo, cannot."""
    meta = obj["metadata"]
    # The spec too: a restored cluster gives the generation, and even the version, that it had given to another edit.
    spoken = meta.get("annotations"), meta.get("deletionTimestamp"), meta.get("finalizers")
    # Of the status only the key's number, which the broker's logins follow; a board's first one changes nothing.
    return (meta.get("generation"), obj.get("spec"), max(FIRST_KEY_NUMBER, recorded_key(obj)), *spoken)


def older(obj: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    """Whether one version of an object precedes another (resourceVersions of one kind are ordered integers)."""
    a, b = obj["metadata"].get("resourceVersion") or "", than["metadata"].get("resourceVersion") or ""
    return a.isdigit() and b.isdigit() and int(a) < int(b)


def rfc3339() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
