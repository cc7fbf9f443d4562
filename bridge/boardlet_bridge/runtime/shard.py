"""Which replica serves which bucket; pure.

Rendezvous hashing: each bucket has a score for each replica, and the highest serves. Who comes takes only what it wins,
who goes leaves only what it had. Replicas learn of each other at different moments, so each publishes the view that it
acts by (runtime/membership.py), gives up what it loses by a view before it publishes it, and takes a bucket only when
no other replica's published view still gives that bucket to its publisher.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Final

BUCKETS: Final = frozenset(f"{n:02x}" for n in range(256))
VIEWS: Final = 64  # cached: a handful of views is about at any time, and 256 hashes a replica cost a millisecond

View = frozenset[str]  # names of replicas that are taken to live


def score(replica: str, bucket: str) -> bytes:
    """How strong this replica's claim to the bucket is; it depends on nothing else."""
    return sha256(f"{replica}/{bucket}".encode()).digest()


@lru_cache(VIEWS)
def share(replica: str, view: View) -> frozenset[str]:
    """The buckets that are this replica's where these live; none where it is not among them."""
    if replica not in view:
        return frozenset()
    return frozenset(b for b in BUCKETS if max(view, key=lambda other: (score(other, b), other)) == replica)


def may_hold(replica: str, view: View, others: Iterable[tuple[str, View]]) -> frozenset[str]:
    """What a replica that has published `view` may serve beside others that live, given by name and published view."""
    mine = share(replica, view)
    for name, published in others:
        mine -= share(name, published)
    return mine
