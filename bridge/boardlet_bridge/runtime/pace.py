"""How fast boards and store are, and how much of the store's budget is used: counted by the engine, read at a scrape.

An edit is timed from when its desired is minted until its board says that it runs it, and only if the board answers in
one session all the while: how long a board was away is no speed of the bridge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from boardlet_bridge.core.state import Board, Desired

BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(slots=True)
class Times:
    """A histogram of durations."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    def family(self, name: str, said: str) -> HistogramMetricFamily:
        """As Prometheus has it: each bucket counts all that is not longer than its bound."""
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        return HistogramMetricFamily(
            name, said, buckets=list(zip(bounds, accumulate(self.counts), strict=True)), sum_value=self.total_s
        )


@dataclass(slots=True)
class Edit:
    """An edit under way: when it was minted, and in which session of its board."""

    epoch: bytes
    at: float


@dataclass(slots=True)
class Pace:
    """Of one bridge, since it started."""

    connects: int = 0
    edits: Times = field(default_factory=Times)
    writes: Times = field(default_factory=Times)

    def follow(self, board: Board, live: bool, desired: Desired | None, edit: Edit | None, now: float) -> Edit | None:
        """A board has made a step, before which it was `live` with this `desired`; returns the edit under way now."""
        if not board.live:
            return None
        self.connects += not live
        if board.desired is not desired and board.desired is not None and not board.confirmed:
            return Edit(board.epoch, now)
        if edit is None or edit.epoch != board.epoch:
            return None
        if not board.confirmed:
            return edit
        self.edits.add(now - edit.at)
        return None


class PaceCollector(Collector):
    """What Prometheus reads of a Pace; `budget_used` is a share, 1 where writes wait for their turn."""

    def __init__(self, pace: Pace, budget_used: Callable[[], float]) -> None:
        self._pace, self._budget_used = pace, budget_used

    def collect(self) -> Iterator[Metric]:
        pace = self._pace
        said = "Times that a board began to answer: it connected, woke, or is heard again by a bridge that had lost it"
        yield CounterMetricFamily("boardlet_connects", said, value=pace.connects)
        said = "Seconds from an edit's being sent until its board, which answered all the while, said that it runs it"
        yield pace.edits.family("boardlet_edit_seconds", said)
        said = "Seconds that the API server, or the folder, took for a status that it has written"
        yield pace.writes.family("boardlet_status_write_seconds", said)
        said = "Share of the budget of writes (status_burst) that is used up now; at 1 they wait"
        yield GaugeMetricFamily("boardlet_write_budget_used_ratio", said, value=self._budget_used())
