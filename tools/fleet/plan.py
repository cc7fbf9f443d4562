"""When which board's sensor changes: ranges of boards at rates of their own, or all together as fast as asked."""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import Final

from .link import IN_FLIGHT, Link

TURN_S: Final = 0.005
TURN_MAX: Final = 500  # changes in one turn of the loop, so that answers are read in between


class Plan:
    """Drives the links' sensors; nothing changes before `change` or `flood`."""

    def __init__(self, links: list[Link]) -> None:
        self._links = links
        self._due: list[tuple[float, int, float]] = []  # when, which, period
        self._flood_per_s = 0.0
        self._flood_at = 0
        self._flooded_until = 0.0
        self.late_s = 0.0
        """How far this process lags behind its plan: more than a moment means that it is the bottleneck."""

    def change(self, ranges: list[tuple[int, int, float]]) -> None:
        """From now on boards first..last-1 change one sensor so often a second, each at a phase of its own."""
        now = asyncio.get_running_loop().time()
        self._due = [
            (now + random.uniform(0, 1 / per_s), n, 1 / per_s)
            for first, last, per_s in ranges
            for n in range(first, last)
        ]
        heapq.heapify(self._due)
        self._flood_per_s = 0.0

    def once(self) -> None:
        """Every sensor of every board changes, once."""
        for link in self._links:
            for index in link.board.sensors:
                link.sense(index)

    def flood(self, per_s: float) -> None:
        """All boards in turn, so many changes a second in all, four of a board at once."""
        self._due = []
        self._flood_per_s, self._flooded_until = per_s, asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Make the changes that are due, for as long as it runs."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            done = self._make_due(now) if self._due else self._make_flood(now)
            await asyncio.sleep(0 if done >= TURN_MAX else TURN_S)

    def _make_due(self, now: float) -> int:
        done = 0
        self.late_s = max(0.0, now - self._due[0][0])
        while self._due[0][0] <= now and done < TURN_MAX:
            when, n, period = self._due[0]
            self._sense(n)
            heapq.heapreplace(self._due, (when + period, n, period))
            done += 1
        return done

    def _make_flood(self, now: float) -> int:
        if not self._flood_per_s:
            self.late_s = 0.0
            return 0
        self.late_s = now - self._flooded_until
        done = min(TURN_MAX, int(self.late_s * self._flood_per_s)) // IN_FLIGHT * IN_FLIGHT
        for _ in range(0, done, IN_FLIGHT):
            link = self._links[self._flood_at]
            if link.board.sensors:
                link.burst(random.choices(link.board.sensors, k=IN_FLIGHT))
            self._flood_at = (self._flood_at + 1) % len(self._links)
        self._flooded_until += done / self._flood_per_s
        return done

    def _sense(self, n: int) -> None:
        link = self._links[n]
        if link.board.sensors:
            link.sense(random.choice(link.board.sensors))
