"""How fast boards and store are, and how much of the store's budget is used: counted by the engine, read at a scrape.

An edit is timed from when its desired is minted until its board says that it runs it, and only if the board answers in
one session all the while: how long a board was away is no speed of the bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from boardlet_bridge.core.state import Board, Desired

BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(slots=True)
class Edit:
    """An edit under way: when it was minted, and in which session of its board."""

    epoch: bytes
    at: float


class Pace:
    """Of one bridge, since it started."""

    def __init__(self) -> None:
        said = "Times that a board began to answer: it connected, woke, or is heard again by a bridge that had lost it"
        self.connects = Counter("boardlet_connects", said, registry=None)
        said = "Seconds from an edit's being sent until its board, which answered all the while, said that it runs it"
        self.edits = Histogram("boardlet_edit_seconds", said, buckets=BOUNDS_S, registry=None)
        said = "Seconds that the API server, or the folder, took for a status that it has written"
        self.writes = Histogram("boardlet_status_write_seconds", said, buckets=BOUNDS_S, registry=None)

    def watch(self, registry: CollectorRegistry, budget_used: Callable[[], float]) -> None:
        """Have these read at each scrape; `budget_used` is a share, 1 where writes wait for their turn."""
        for counted in (self.connects, self.edits, self.writes):
            registry.register(counted)
        said = "Share of the budget of writes (status_burst) that is used up now; at 1 they wait"
        Gauge("boardlet_write_budget_used_ratio", said, registry=registry).set_function(budget_used)

    def follow(self, board: Board, live: bool, desired: Desired | None, edit: Edit | None, now: float) -> Edit | None:
        """A board has made a step, before which it was `live` with this `desired`; returns the edit under way now."""
        if not board.live:
            return None
        if not live:
            self.connects.inc()
        if board.desired is not desired and board.desired is not None and not board.confirmed:
            return Edit(board.epoch, now)
        if edit is None or edit.epoch != board.epoch:
            return None
        if not board.confirmed:
            return edit
        self.edits.observe(now - edit.at)
        return None
