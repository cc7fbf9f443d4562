"""How many writes the API server gets from this bridge: one token bucket for statuses and finalizers together."""

from __future__ import annotations


class Budget:
    """`per_s` writes a second in the long run, `burst` more for a moment; times are seconds of one monotonic clock."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens, self._at = float(burst), 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until a write is allowed, 0 for at once."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        return max(0.0, (1 - self._tokens) / self._per_s)

    def used(self, now: float) -> float:
        """The share of the burst that is used up, 1 where the next write has to wait."""
        self.wait_s(now)
        return min(1.0, (self._burst - self._tokens) / max(1, self._burst - 1))

    def spend(self) -> None:
        """One write is made."""
        self._tokens -= 1
