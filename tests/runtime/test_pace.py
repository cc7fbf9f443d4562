"""What the bridge counts of speed: an edit from its minting to its board's word, connects, the budget of writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from boardlet_bridge.core.state import Board, Desired, Identity
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.runtime.pace import BOUNDS_S, Edit, Pace
from prometheus_client import CollectorRegistry


@dataclass(frozen=True)
class State:
    """Of a board what counts here."""

    live: bool = True
    epoch: bytes = b"a"
    desired: Any = None
    confirmed: bool = False


@dataclass(frozen=True)
class Asked:
    """A desired, told from others by being another object."""

    identity: Identity


class Follow:
    """A Pace that follows one board through its states."""

    def __init__(self) -> None:
        self.pace, self.registry = Pace(), CollectorRegistry()
        self.pace.watch(self.registry, lambda: 0.0)
        self.state, self.edit = State(live=False), cast(Edit | None, None)

    def to(self, now: float, **changes: Any) -> None:
        before, self.state = self.state, replace(self.state, **changes)
        desired = cast(Desired | None, before.desired)
        self.edit = self.pace.follow(cast(Board, self.state), before.live, desired, self.edit, now)

    def counted(self) -> tuple[float | None, ...]:
        """Connects, edits, and the seconds that these took."""
        names = ("boardlet_connects_total", "boardlet_edit_seconds_count", "boardlet_edit_seconds_sum")
        return tuple(map(self.registry.get_sample_value, names))


def asked(revision: int) -> Asked:
    return Asked(Identity(b"u", revision, b"d", 1))


def test_an_edit_is_timed_to_its_boards_word() -> None:
    """From the newest minting to the board's confirmation; a step without news between them changes nothing."""
    board = Follow()
    board.to(1, live=True)
    board.to(2, desired=asked(1))
    board.to(3, desired=asked(2))
    board.to(3.5)
    board.to(4, confirmed=True)
    board.to(9)
    assert board.counted() == (1, 1, 1.0)


def test_time_in_which_a_board_was_away_is_no_latency() -> None:
    """Minted for a board that is away, or that goes meanwhile or begins anew: such an edit is not in the histogram."""
    board = Follow()
    board.to(1, desired=asked(1))
    board.to(100, live=True)
    board.to(101, confirmed=True)
    board.to(200, desired=asked(2), confirmed=False)
    board.to(201, live=False)
    board.to(300, live=True, epoch=b"b")
    board.to(301, confirmed=True)
    board.to(400, desired=asked(3), confirmed=False)
    board.to(401, epoch=b"c")
    board.to(402, confirmed=True)
    assert board.counted() == (2, 0, 0.0)


def test_what_prometheus_reads() -> None:
    """Buckets are cumulative, the last is all; the sum is in seconds; the budget is a share."""
    pace, registry = Pace(), CollectorRegistry()
    pace.watch(registry, lambda: 0.25)
    pace.connects.inc(3)
    for seconds in (0.01, 0.2, 1000.0):
        pace.edits.observe(seconds)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("boardlet_connects_total") == 3
    counts = [value("boardlet_edit_seconds_bucket", le=str(bound)) for bound in BOUNDS_S]
    assert counts == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert value("boardlet_edit_seconds_bucket", le="+Inf") == value("boardlet_edit_seconds_count") == 3
    assert value("boardlet_edit_seconds_sum") == 1000.21
    assert value("boardlet_status_write_seconds_count") == 0
    assert value("boardlet_write_budget_used_ratio") == 0.25


def test_the_share_of_a_budget() -> None:
    """0 while nobody writes, 1 from where the next write has to wait, and less again as time passes."""
    budget = Budget(10.0, 5)
    assert budget.used(0.0) == 0
    while not budget.wait_s(0.0):
        budget.spend()
    assert budget.used(0.0) == 1
    assert budget.used(0.3) == 0.5
    assert budget.used(60.0) == 0
