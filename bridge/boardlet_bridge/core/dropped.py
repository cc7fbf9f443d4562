"""Dropped: what a board and the bridge would not believe, counted; a condition says that it is so now, this how often.

A count orders no status write of its own, or a forger could order them: it is written with what else is, and for itself
at most once in `suspicion_s`. The board's own counts come with its full reports and begin anew when it boots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from boardlet_wire.names import Counter, ReportKey

from boardlet_bridge.core.codec import Fields
from boardlet_bridge.core.event import DroppedByBoard, Effect, Refused
from boardlet_bridge.core.state import Board

BY_BOARD: Final[Mapping[int, str]] = {
    Counter.WRONG_SEAL: "wrongSeal",
    Counter.MALFORMED: "malformed",
    Counter.OVERSIZE: "oversize",
    Counter.STALE: "stale",
}
BY_BRIDGE: Final[Mapping[str, str]] = {
    "wrong_seal": "wrongSeal",
    "malformed": "malformed",
    "revoked_key": "revokedKey",
    "duplicate": "repeated",
}
MAX_COUNT: Final = 2**32 - 1


def counts_of(fields: Fields) -> dict[str, int]:
    """The board's counters in a report's body, without those that are 0; raises MalformedError."""
    counted = fields.child(ReportKey.COUNTERS)
    named = {name: counted.integer(key) for key, name in BY_BOARD.items() if key in counted}
    return {name: count for name, count in named.items() if count}


def take(board: Board, counts: Mapping[str, int]) -> list[Effect]:
    """The board's counters as it says them now; what has been dropped since its last word is an effect."""
    boot = board.birth.fields.get("bootCount") if board.birth else None
    before, same_boot = board.dropped_by_board, boot == board.dropped_in_boot
    board.dropped_by_board, board.dropped_in_boot = dict(counts), boot
    if before is None:
        board.unshown |= bool(counts)
        return []  # how much of it an earlier bridge has told is not known
    if counts == before:
        return []
    board.unshown = True
    # A board that woke has forgotten its counts, in the same boot.
    goes_on = same_boot and all(counts.get(name, 0) >= count for name, count in before.items())
    fresh = {name: count - (before.get(name, 0) if goes_on else 0) for name, count in counts.items()}
    return [DroppedByBoard(name, count, in_same_boot=goes_on) for name, count in fresh.items() if count]


def count(board: Board, refused: Refused, now: float) -> None:
    """One more message that the bridge has dropped."""
    name = BY_BRIDGE.get(refused.cause)
    if name is None:
        return
    board.dropped_by_bridge[name] = min(board.dropped_by_bridge.get(name, 0) + 1, MAX_COUNT)
    if now >= board.dropped_due:
        board.dropped_due = now + board.limits.suspicion_s
        board.unshown = True


def recall(board: Board, status: Mapping[str, Any]) -> None:
    """Go on counting where an earlier bridge stopped."""
    said = (status.get("droppedMessages") or {}).get("byBridge") or {}
    board.dropped_by_bridge = {
        name: min(said[name], MAX_COUNT) for name in BY_BRIDGE.values() if type(said.get(name)) is int
    }


def shown(board: Board, previous: Mapping[str, Any]) -> dict[str, Any]:
    """status.droppedMessages; empty where nothing was dropped."""
    by_board = board.dropped_by_board
    if by_board is None:
        by_board = (previous.get("droppedMessages") or {}).get("byBoard") or {}
    both = {"byBoard": dict(by_board), "byBridge": dict(board.dropped_by_bridge)}
    return {who: counts for who, counts in both.items() if counts}
