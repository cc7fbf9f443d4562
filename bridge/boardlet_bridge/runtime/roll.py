"""Who lives: replicas' leases as they were seen to change, by this process's own clock; pure.

Other machines' clocks are not trusted: a replica is dead when its lease has stood still for its duration while we
looked on. Time in which nobody looked, as while the API server was away, does not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from boardlet_bridge.kube.lease import Lease

BLIND: Final = 2 / 3  # of one's own duration: whoever has not looked for so long has not seen anybody stand still
KEPT: Final = 20  # durations after which a dead replica's lease is swept away; until then it tells an operator


@dataclass(slots=True)
class Seen:
    lease: Lease
    at: float  # when it was last seen to change
    away_at: float | None = None  # since when it has been seen to say that it does not reach the broker


@dataclass(slots=True)
class Roll:
    """The leases of a site as last listed."""

    duration_s: float
    """Of one's own lease, which says how often one looks; another's may be shorter, as of before a change of it."""
    seen: dict[str, Seen] = field(default_factory=dict)
    looked_at: float = float("-inf")

    def look(self, leases: Iterable[Lease], now: float) -> None:
        """Take a listing; `now` is seconds of one monotonic clock."""
        before, self.seen = self.seen if now - self.looked_at <= self.duration_s * BLIND else {}, {}
        for lease in leases:
            known = before.get(lease.replica)
            still = known is not None and known.lease.version == lease.version
            away_at = (known.away_at if known is not None else None) or now
            at = known.at if known is not None and still else now
            self.seen[lease.replica] = Seen(lease, at, away_at if lease.away else None)
        self.looked_at = now

    def live(self, now: float) -> dict[str, Lease]:
        """The replicas that live, by name."""
        return {name: s.lease for name, s in self.seen.items() if now < s.at + s.lease.duration_s}

    def away(self, now: float, for_s: float) -> set[str]:
        """Those that have said for so long that they do not reach the broker."""
        return {name for name, s in self.seen.items() if s.away_at is not None and now >= s.away_at + for_s}

    def next_death(self, now: float) -> float:
        """When the first of the living is dead if nothing is heard of it, inf for never."""
        ends = [s.at + s.lease.duration_s for s in self.seen.values()]
        return min((end for end in ends if end > now), default=float("inf"))

    def long_dead(self, now: float) -> list[Lease]:
        """Leases that nobody needs any more."""
        return [s.lease for s in self.seen.values() if now >= s.at + KEPT * s.lease.duration_s]
