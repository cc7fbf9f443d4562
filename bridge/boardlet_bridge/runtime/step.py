"""A board's step, the one way in which its state changes: the core decides, and the effects go out into the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import structlog

from boardlet_bridge.core.board import step
from boardlet_bridge.core.event import (
    DroppedByBoard,
    Effect,
    Event,
    Publish,
    Refused,
    SetFinalizer,
    Tick,
    Wake,
    WriteStatus,
)
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.runtime.alarm import Alarm
from boardlet_bridge.runtime.census import Census
from boardlet_bridge.runtime.outlet import Outlet
from boardlet_bridge.runtime.registry import BOARDS, Entry, Name, Registry

REFUSED_S: Final = 60.0  # whoever floods a topic must not flood the log: one line a board and cause in this time

log = structlog.get_logger("engine")


@dataclass(slots=True)
class Steps:
    """Of all boards; those of other replicas' make them too, and nothing comes of it but a wake."""

    registry: Registry
    census: Census
    outlet: Outlet
    alarm: Alarm = field(init=False)

    def __post_init__(self) -> None:
        self.alarm = Alarm(self.outlet.call_at, self.outlet.now, self._tick)

    def take(self, entry: Entry, event: Event) -> None:
        """Have this happen to a board, and carry out what follows; a bug of ours in it stays with this board."""
        board, now = entry.board, self.outlet.now()
        live, desired = board.live, board.desired
        try:
            effects = step(board, event, now)
        except Exception:
            # A bug of ours, said loudly. What brought it about may be retained or stored, and come at every start:
            # it must not take the other boards with it.
            log.exception("a step failed: report this", object="/".join(entry.name), event_type=type(event).__name__)
            self.outlet.refused("failed_step")
            return
        entry.edit = self.census.pace.follow(board, live, desired, entry.edit, now)
        if board.desired is not entry.sworn and self.outlet.sure():
            entry.sworn = board.desired
        for effect in effects:
            self._carry_out(entry, effect)
        if board.login != entry.login:
            entry.login = board.login
            self.admit(board.keys.board_id)

    def admit(self, board_id: str) -> None:
        """Have the broker's login of this id follow the Board that is served of those that claim it."""
        owner = self.registry.claims.owner(board_id)
        self.outlet.admit(board_id, owner.board.login if owner else 0)

    def _carry_out(self, entry: Entry, effect: Effect) -> None:
        if entry.bucket not in self.registry.held and not isinstance(effect, Wake):
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
                self.census.dropped[cause] += count
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
        entry = self.registry.entries.get(name)
        if entry is not None:
            self.take(entry, Tick())
