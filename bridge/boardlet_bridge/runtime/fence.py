"""The fence: may this replica speak now? Asked before every write and publish, against a clock that no pause stops.

A process that was paused, or cut off, for longer than its lease lasts has been given up by the others. It must notice
before it says anything, so what it was sure of has an end in time, which only a renewed lease moves. The others wait
longer than that end: half as long again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Final

SURE: Final = 2 / 3  # of the lease's duration; the rest is for what is under way


class Gate(Enum):
    """What may leave the process."""

    OPEN = "open"
    """Everything: the lease holds."""
    ADRIFT = "adrift"
    """What was minted before: the lease has run out because the API server is away, which may be so for all."""
    CLOSED = "closed"
    """Nothing: the lease has run out, and it is not known yet what the others have made of that."""


def boottime() -> float:
    """Seconds of a clock that goes on while the process, or the whole machine, is stopped."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Fence:
    """Closed until the first lease is held; `alone` has it always open."""

    def __init__(self, duration_s: float, clock: Callable[[], float] = boottime) -> None:
        self._duration_s, self._clock = duration_s, clock
        self._sure_until = self._adrift_until = float("-inf")
        self.alone = False

    @property
    def gate(self) -> Gate:
        if self.alone:
            return Gate.OPEN
        now = self._clock()
        if now < self._sure_until:
            return Gate.OPEN
        return Gate.ADRIFT if now < self._adrift_until else Gate.CLOSED

    @property
    def sure(self) -> bool:
        """Whether nobody else can have been given what this replica serves."""
        return self.gate is Gate.OPEN

    def renewed(self, asked_at: float) -> None:
        """The lease was renewed by a request that was made then, and what is held is known to be ours."""
        self._sure_until = asked_at + SURE * self._duration_s

    def failed(self, at: float) -> None:
        """The API server had not answered by then; after a pause that says nothing of now."""
        self._adrift_until = at + self._duration_s

    def close(self) -> None:
        """Somebody else has the lease."""
        self._sure_until = self._adrift_until = float("-inf")
