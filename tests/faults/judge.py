"""A case of the fault suite: how many faults it injects, and how it is judged in the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from boards_in_use import Fleet

FULL: Final = os.environ.get("BOARDLET_FAULTS") == "full"
MakeFleet = Callable[..., Fleet]


@dataclass(slots=True)
class Row:
    """How one case ended."""

    case: str
    faults: str = ""
    boards: int = 0
    edits: int = 0
    lost: int = 0
    differences: int = 0
    seconds: float = 0.0


class Case:
    """One case: counts its faults, and judges its fleets in the end."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.full = FULL

    def count(self, full: int, quick: int) -> int:
        """How many faults to inject in this run."""
        return full if FULL else quick

    def injected(self, words: str) -> None:
        """Say what was injected, for the table."""
        self.row.faults = words

    def judge(self, fleet: Fleet, *, wait_s: float = 90.0, may_go_back: bool = False) -> None:
        """Zero differences, zero lost edits, no status that lied and, unless allowed, no board that went back."""
        differences = fleet.settled(wait_s)
        lost, lies, backwards = fleet.lost(), fleet.ledger.lies(), fleet.backwards()
        self.row.boards = len(fleet.members)
        self.row.edits = fleet.ledger.edits
        self.row.lost += lost
        self.row.differences += len(differences)
        assert not differences, "\n".join(differences)
        assert not lost, f"{lost} edits are lost"
        assert not lies, "\n".join(lies)
        assert may_go_back or not backwards, "\n".join(backwards)
        assert fleet.ledger.claims, "the witness saw statuses"
