"""What metrics say of boards: counted as it happens, or looked up in the registry when somebody scrapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from boardlet_bridge.core.model import Model
from boardlet_bridge.core.state import Board
from boardlet_bridge.runtime.pace import Pace
from boardlet_bridge.runtime.registry import Name, Registry


class Census:
    """Of one bridge, since it started."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.received: Counter[str] = Counter()
        """Messages of boards so far, by the letter of their topic."""
        self.dropped: Counter[str] = Counter()
        """What boards say that they have dropped, by cause, since this bridge first heard each of them."""
        self.pace = Pace()

    @property
    def connected(self) -> int:
        """How many boards answer in their present session."""
        return sum(entry.board.live for entry in self._registry.entries.values())

    @property
    def served(self) -> int:
        """How many Board objects are this replica's to serve."""
        return len(self._registry.within(self._registry.held))

    def conditions(self) -> Counter[tuple[str, str, str]]:
        """How many boards show each (type, status, reason)."""
        served = self._registry.within(self._registry.held)
        shown = (condition for entry in served for condition in entry.board.shown)
        return Counter((condition.type, condition.status, condition.reason) for condition in shown)

    def measured(self) -> Iterator[tuple[Name, Board, Model]]:
        """The boards that are served and whose models have metrics, with those models; in the order they were met."""
        compiled = self._registry.models.compiled
        models = {name: m for name, m in compiled.items() if isinstance(m, Model) and m.metrics}
        if not models:
            return
        for entry in self._registry.within(self._registry.held):
            if model := models.get(entry.model_ref):
                yield entry.name, entry.board, model

    def root_keys(self) -> Counter[int]:
        """How many boards have keys of each root key, by its first key number; 0: of one that was removed."""
        counted: Counter[int] = Counter({root.first: 0 for root in self._registry.ring.roots})
        for entry in self._registry.entries.values():
            root = entry.board.root_number
            if root or entry.board.rootless:
                counted[root] += 1
        return counted
