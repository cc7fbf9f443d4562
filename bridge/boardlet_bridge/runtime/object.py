"""Boards and BoardModels as the store tells them: met, changed, deleted, and what boards are told of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from boardlet_wire.names import DESIRED, SESSION

from boardlet_bridge.core.board import recorded_key, stands
from boardlet_bridge.core.credential import FIRST_KEY_NUMBER
from boardlet_bridge.core.event import BrokerUp, ClaimSeen, Message, ObjectSeen, StatusSeen
from boardlet_bridge.core.store import Change
from boardlet_bridge.runtime.outlet import Outlet
from boardlet_bridge.runtime.registry import BOARDS, MODELS, REWOUND, Entry, Name, Registry, name_of
from boardlet_bridge.runtime.snapshot import bare
from boardlet_bridge.runtime.step import Steps

# Conditions that somebody else wrote over are put right at once, but so often only: of two bridges that do not agree,
# each would write over the other's as fast as it can.
OVERWRITTEN_S: Final = 60.0

log = structlog.get_logger("engine")


@dataclass(slots=True)
class Objects:
    """Keeps the registry as the store is."""

    registry: Registry
    steps: Steps
    outlet: Outlet

    def on_model(self, change: Change, obj: Mapping[str, Any]) -> None:
        models, name = self.registry.models, name_of(obj)
        if change == "DELETED":
            models.drop(name)
        else:
            before = models.objects.get(name, {})
            changed = models.put(obj)
            if changed or before.get("spec") != obj.get("spec"):
                self.outlet.mark((MODELS, *name), True)  # its status names the generation that it is about
            if not changed:
                return
        for entry in list(self.registry.entries.values()):
            if entry.model_ref == name:
                self.steps.take(entry, models.seen(name))

    def on_board(self, change: Change, obj: Mapping[str, Any]) -> None:
        name = name_of(obj)
        entry = self.registry.entries.get(name)
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
        for entry in self.registry.entries.values():
            entry.object = {**entry.object, "metadata": {**entry.object["metadata"], "resourceVersion": REWOUND}}

    def begin_anew(self, entry: Entry) -> None:
        """Forget of this board all but its object, as a bridge that starts."""
        rival = entry.board.rival
        entry.board = self.registry.new_board(entry.board.keys.board_id, entry.object)
        entry.sent = entry.sworn = None
        entry.stale, entry.said = False, b""
        for event in (self.registry.models.seen(entry.model_ref), ClaimSeen(rival), ObjectSeen(entry.object)):
            self.steps.take(entry, event)

    def _meet(self, name: Name, obj: Mapping[str, Any]) -> None:
        registry, board_id = self.registry, obj["spec"]["boardID"]
        entry = Entry(name, registry.new_board(board_id, obj), obj, model_ref(obj))
        registry.entries[name] = entry
        registry.claims.add(entry)
        self.steps.take(entry, registry.models.seen(entry.model_ref))
        self._settle(board_id)
        if mailbox := registry.leftovers.mailboxes.pop(board_id, None):
            self.steps.take(entry, Message(DESIRED, mailbox))
        self.steps.take(entry, ObjectSeen(obj))
        self.steps.admit(board_id)  # one that lets nobody in may have been met after a younger claim that would
        if session := registry.leftovers.sessions.pop(board_id, None):
            self.steps.take(entry, Message(SESSION, session))
        if entry.bucket in registry.read:
            self.steps.take(entry, BrokerUp())

    def _update(self, entry: Entry, obj: Mapping[str, Any]) -> None:
        before, entry.object = entry.object, obj
        if model_ref(obj) != entry.model_ref:
            entry.model_ref = model_ref(obj)
            self.steps.take(entry, self.registry.models.seen(entry.model_ref))
        if decisive(obj) != decisive(before):
            self.steps.take(entry, ObjectSeen(obj))
        foreign = obj.get("status") != before.get("status") and bare(obj.get("status")) != entry.sent
        if foreign or before["metadata"].get("resourceVersion") == REWOUND:
            # Somebody else wrote the status; the writer's next snapshot puts it right, and is dropped if it is.
            status = obj.get("status") or {}
            if entry.bucket not in self.registry.held:
                entry.stale = True
            elif entry.board.shown:
                self.outlet.mark((BOARDS, *entry.name), not stands(entry.board, status) and self._mends(entry))
            else:
                self.steps.take(entry, StatusSeen(status))

    def _mends(self, entry: Entry) -> bool:
        now = self.outlet.now()
        if now < entry.mended_at + OVERWRITTEN_S:
            return False
        entry.mended_at = now
        return True

    def _forget(self, entry: Entry) -> None:
        registry, board = self.registry, entry.board
        board_id = board.keys.board_id
        del registry.entries[entry.name]
        registry.claims.drop(entry)
        self._settle(board_id)
        self.steps.admit(board_id)
        if registry.claims.owner(board_id) is not None:
            return
        # It may have fallen asleep after its object was deleted, and before we heard of that.
        registry.leftovers.keep(board_id, SESSION, entry.said)
        if board.mailbox and not board.deleting:
            # Its object went without our having seen a deletion: the cluster was restored to before it.
            registry.leftovers.keep(board_id, DESIRED, board.mailbox)
            registry.leftovers.tell(board_id)

    def _settle(self, board_id: str) -> None:
        for entry, rival in list(self.registry.claims.rivals(board_id)):
            if entry.board.rival != rival:
                if rival:
                    log.warning("two Boards claim one id", board=board_id, served=rival, unserved="/".join(entry.name))
                self.steps.take(entry, ClaimSeen(rival))


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
