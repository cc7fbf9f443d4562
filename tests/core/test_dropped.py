"""What board and bridge drop is counted on the object, told when it means something, and orders no flood of writes."""

from __future__ import annotations

from typing import Any

import pytest
from boardlet_bridge.core.event import DroppedByBoard
from peer import BoardSide, World, ready


def counts(world: World) -> dict[str, Any]:
    return dict(world.status.get("droppedMessages", {}))


def full(world: World, counted: object) -> None:
    """The board is asked anew, as it is after ten heartbeats, and answers with these counters."""
    until = world.now + 800
    while world.now < until:
        asked = world.count("c")
        world.wait(30)
        if world.count("c") > asked:
            world.send(world.side.full(world.nonce(), _7=counted))
            return
        world.send(world.side.report({-2: world.side.applied[1] if world.side.applied else 0, -4: 1}))
    raise AssertionError("it was not asked")


def forge(world: World) -> None:
    forger = BoardSide(key=b"f" * 32, epoch=world.side.epoch, sequence=world.side.sequence)
    world.send(forger.report({0: False}))


def test_a_quiet_board_shows_no_counts() -> None:
    """Where nothing was dropped, nothing is said of it."""
    world = ready()
    full(world, {0: 0, 1: 0, 2: 0, 3: 0})
    assert "droppedMessages" not in world.status


def test_the_boards_counters_are_shown() -> None:
    """All four counters of a full report stand in the status by name; unknown ones are ignored."""
    world = ready()
    full(world, {0: 1, 1: 2, 2: 3, 3: 4, 9: 5})
    assert counts(world) == {"byBoard": {"wrongSeal": 1, "malformed": 2, "oversize": 3, "stale": 4}}


def test_forgeries_towards_a_board_are_told() -> None:
    """Wrong seals that a board counts while it runs are a condition, an Event, and over five minutes after the last."""
    world = ready()
    full(world, {1: 2, 2: 1, 3: 7})
    assert "MessagesRefused" not in world.happened()
    full(world, {0: 5, 1: 2, 2: 1, 3: 7})
    assert world.condition("MessagesRefused") == ("True", "WrongSealAtBoard")
    assert world.condition("Ready") == ("True", "Synced"), "it does what it is asked all the same"
    assert world.happened() == ["MessagesRefused"]
    assert counts(world)["byBoard"] == {"wrongSeal": 5, "malformed": 2, "oversize": 1, "stale": 7}
    world.wait(20)
    full(world, {0: 5, 1: 2, 2: 1, 3: 7})
    world.wait(301)
    assert "MessagesRefused" not in {c["type"] for c in world.status["conditions"]}


def test_a_board_that_was_flashed_tells_no_forgery() -> None:
    """Counts of a new boot are no attack yet: the mailbox may have been sealed for the key that it had before."""
    world = ready()
    world.side.epoch, world.side.sequence = b"second-1", 0
    world.send(world.side.here(_4=2))
    world.send(world.side.full(world.nonce(), _7={0: 3}))
    assert counts(world)["byBoard"] == {"wrongSeal": 3}
    assert "MessagesRefused" not in {c["type"] for c in world.status["conditions"]}


def test_sums_count_each_drop_once() -> None:
    """For the metric: what a bridge finds at its first look is no news, then differences count, after a boot all."""
    world = ready()
    told: list[tuple[str, int]] = []
    taken = world._take
    world._take = lambda effect: (  # type: ignore[method-assign]
        told.append((effect.cause, effect.count)) if isinstance(effect, DroppedByBoard) else taken(effect)
    )
    full(world, {3: 2})
    full(world, {3: 5, 1: 1})
    assert told == [("stale", 2), ("malformed", 1), ("stale", 3)]
    world.side.epoch, world.side.sequence = b"second-1", 0
    world.send(world.side.here(_4=2))
    world.send(world.side.full(world.nonce(), _7={3: 5}))
    assert told[3:] == [("stale", 5)]
    world.start_bridge()
    world.connect_broker()
    world.send(world.side.full(world.nonce(), _7={3: 9}))
    assert told[4:] == [], "an earlier bridge may have counted it"


@pytest.mark.parametrize("counted", [5, {0: -1}, {0: "x"}, {0: 2.5}, {0: 2**33}])
def test_counters_that_are_none(counted: object) -> None:
    """A sealed report whose counters make no sense changes nothing and is told as malformed."""
    world = ready()
    full(world, counted)
    assert world.refused[-1:] == ["malformed"]
    assert "byBoard" not in counts(world)


def test_a_flood_of_forgeries_costs_two_writes() -> None:
    """A thousand forged reports: the status says so at once, counts on, and is written again when it is over."""
    world = ready()
    writes = world.writes
    for _ in range(1000):
        forge(world)
    assert world.writes == writes + 1
    assert counts(world) == {"byBridge": {"wrongSeal": 1}}
    world.send(world.side.report({-2: world.side.applied}))
    world.wait(301)
    assert counts(world) == {"byBridge": {"wrongSeal": 1000}}


def test_a_flood_without_end_is_written_every_five_minutes() -> None:
    """Who never stops is counted up in the status, at the pace of suspicion_s."""
    world = ready()
    writes = world.writes
    for _ in range(70):
        forge(world)
        world.wait(10)
        world.answer()
    assert world.writes - writes == 3
    assert counts(world)["byBridge"]["wrongSeal"] == 61


def test_the_next_bridge_counts_on() -> None:
    """Counts of the bridge go on where the last status has them; the board's stay until it answers again."""
    world = ready()
    full(world, {1: 1})
    forge(world)
    world.start_bridge()
    world.write()
    assert counts(world) == {"byBoard": {"malformed": 1}, "byBridge": {"wrongSeal": 1}}
    world.connect_broker()
    world.answer()
    forge(world)
    assert counts(world)["byBridge"] == {"wrongSeal": 2}


def test_a_replay_is_counted() -> None:
    """A report that had come before moves nothing and is counted as repeated."""
    world = ready()
    message = world.side.report({-2: world.side.applied, 0: True})
    world.send(message, message)
    assert counts(world) == {"byBridge": {"repeated": 1}}
    assert "MessagesRefused" not in {c["type"] for c in world.status["conditions"]}, "a broker may deliver twice"
