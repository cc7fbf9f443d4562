"""Buckets among replicas: only what must move moves, nobody is left out, and no two hold one bucket by their views."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from boardlet_bridge.runtime.shard import BUCKETS, may_hold, share
from boardlet_wire.topic import bucket
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
VIEWS = st.frozensets(NAMES, min_size=1, max_size=6)


@given(VIEWS)
def test_every_bucket_has_one_replica(view: frozenset[str]) -> None:
    """Whoever the replicas are, each bucket falls to exactly one of them."""
    counted = Counter(b for name in view for b in share(name, view))
    assert counted == dict.fromkeys(BUCKETS, 1)
    assert share("not among them!", view) == frozenset()


@given(VIEWS, NAMES)
def test_only_what_must_move_moves(view: frozenset[str], name: str) -> None:
    """A replica that comes takes buckets and moves none between the others; the one that goes gives back just these."""
    more = view | {name}
    for other in view - {name}:
        assert share(other, view - {name} or view) >= share(other, more)
        assert share(other, view - {name} or view) - share(other, more) <= share(name, more)


def test_shares_are_even() -> None:
    """Of many replicas nobody has more than twice what would be fair, for names as pods have them."""
    for count in (2, 3, 4, 8):
        view = frozenset(f"boardlet-bridge-7c9fdb84b6-{n:05x}" for n in range(count))
        assert max(len(share(name, view)) for name in view) < 2 * len(BUCKETS) / count


@given(st.dictionaries(NAMES, VIEWS, min_size=1, max_size=5))
def test_no_two_hold_a_bucket_whatever_their_views(views: dict[str, frozenset[str]]) -> None:
    """However stale the published views are, who looks at all of them holds nothing that another one could hold."""
    held = {
        name: may_hold(name, view, [(other, seen) for other, seen in views.items() if other != name])
        for name, view in views.items()
    }
    for one, other in combinations(held, 2):
        assert not held[one] & held[other]
    same = frozenset(views)
    agreed = [may_hold(name, same, [(other, same) for other in same - {name}]) for name in same]
    assert frozenset().union(*agreed) == BUCKETS


def test_a_bucket_is_the_one_of_the_topics() -> None:
    """Buckets are named as in the boards' topics."""
    assert {bucket(f"board{n:05d}") for n in range(5000)} == BUCKETS
