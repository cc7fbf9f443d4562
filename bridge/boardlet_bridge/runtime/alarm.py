"""Wakes: a timer of the loop for the earliest of what all boards asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial

from boardlet_bridge.runtime.registry import Name

CallAt = Callable[[float, Callable[[], None]], None]


class Alarm:
    """Calls `ring` with each name whose time has come; `call_at` is the loop's, `now` its clock in seconds."""

    def __init__(
        self,
        call_at: Callable[[float, Callable[[], None]], None],
        now: Callable[[], float],
        ring: Callable[[Name], None],
    ) -> None:
        self._call_at, self._now, self._ring = call_at, now, ring
        self._heap: list[tuple[float, Name]] = []
        self._waiting: set[tuple[float, Name]] = set()
        self._stopped = False
        self._timers: set[float] = set()  # when one rings; a wake that came before another leaves that one's be

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: float, name: Name) -> None:
        """Ring for this name then, once however often it is asked: a ring that asks again must not multiply."""
        wake = (when, name)
        if wake in self._waiting:
            return
        self._waiting.add(wake)
        heapq.heappush(self._heap, wake)
        self._set()

    def stop(self) -> None:
        """Ring no more, whatever is asked."""
        self._stopped = True

    def _set(self) -> None:
        if self._heap and (when := self._heap[0][0]) not in self._timers:
            self._timers.add(when)
            self._call_at(when, partial(self._due, when))

    def _due(self, when: float) -> None:
        self._timers.discard(when)
        if self._stopped:
            return
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            wake = heapq.heappop(self._heap)
            self._waiting.discard(wake)
            self._ring(wake[1])
        self._set()
