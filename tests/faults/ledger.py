"""Who asked what of which board, and what its status claimed: the book that says whether an edit was lost.

Each edit of a board sets `step` one higher than the edit before, and the board's program writes down every step that it
takes. So a later edit supersedes an earlier one where its step is higher; a board that goes back is seen; and a status
that claims a generation before the board had taken its step has lied.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """The edits and claims of one fleet; used by several threads."""

    accepted: dict[str, dict[int, int]] = field(default_factory=dict)  # board: generation → step
    unsure: int = 0
    """Edits whose answer was lost: they may be there or not."""
    claims: list[tuple[str, int, int]] = field(default_factory=list)  # board, generation, highest step it had taken
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def edited(self, board: str, generation: int, step: int) -> None:
        """The API server accepted this edit."""
        with self._lock:
            self.accepted.setdefault(board, {})[generation] = step

    def unanswered(self) -> None:
        """An edit got no answer."""
        with self._lock:
            self.unsure += 1

    def claimed(self, board: str, generation: int, taken: int) -> None:
        """A status said Synced=True of this generation when the board's highest step was `taken`."""
        with self._lock:
            self.claims.append((board, generation, taken))

    def forget(self, board: str, after: int = 0) -> None:
        """What a restore of the cluster took away, whose generations come again: all after this one."""
        with self._lock:
            self.accepted[board] = {g: s for g, s in self.accepted.get(board, {}).items() if g <= after}
            self.claims = [claim for claim in self.claims if claim[0] != board or claim[1] <= after]

    @property
    def edits(self) -> int:
        """How many edits the API server accepted."""
        with self._lock:
            return sum(len(steps) for steps in self.accepted.values())

    def last(self, board: str) -> int:
        """The step of the last accepted edit of a board."""
        with self._lock:
            return max(self.accepted.get(board, {}).values(), default=0)

    def lost(self, board: str, taken: int) -> int:
        """How many accepted edits of a board that stands at step `taken` are neither there nor superseded."""
        with self._lock:
            return sum(step > taken for step in self.accepted.get(board, {}).values())

    def lies(self) -> list[str]:
        """Every claim that was made before the board had taken the step of the generation claimed."""
        with self._lock:
            return [
                f"{board}: Synced at generation {generation}, which is step {self.accepted[board][generation]}, "
                f"when the board had taken no more than {taken}"
                for board, generation, taken in self.claims
                if taken < self.accepted.get(board, {}).get(generation, 0)
            ]
