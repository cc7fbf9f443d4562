"""Notices: what is told in Events, when, and that nothing is told twice."""

from __future__ import annotations

from boardlet_bridge.core.event import ClaimSeen, ModelSeen
from boardlet_bridge.core.state import Limits
from peer import BoardSide, World, model, ready


def again(world: World, **birth: object) -> None:
    """The board connects anew, boots counted as it says, and answers."""
    world.side.epoch = bytes([world.side.epoch[0] + 1]) + world.side.epoch[1:]
    world.side.sequence = 0
    world.send(world.side.here(**birth))
    world.answer()


def test_comings_and_goings() -> None:
    """A board's first answer, the end of its connection and its return are told, each once and with the cause."""
    world = ready()
    assert world.notices[-1].message == "the board answers; boot 1, cause PowerOn; agent 0.1.0"
    assert world.happened() == ["Connected"]
    world.send(world.side.gone(), world.side.gone())
    assert world.happened() == ["Disconnected"]
    world.wait(3600)
    assert world.happened() == []
    again(world)
    assert world.happened() == ["Connected"]


def test_silence_is_an_end_too() -> None:
    """A board that falls silent is told as Disconnected, with the condition's own words."""
    world = ready()
    world.happened()
    world.wait(91)
    assert world.notices[-1].kind == "Warning"
    assert "heartbeat" in world.notices[-1].message
    assert world.happened() == ["Disconnected"]


def test_a_reboot_is_told_once_with_its_cause() -> None:
    """A higher boot count is Rebooted, after a crash or a watchdog Crashed with the traceback's last line."""
    world = ready()
    world.happened()
    again(world, _4=2, _5=2)
    assert "boot 2, cause HardReset" in world.notices[-1].message
    assert world.happened() == ["Rebooted"]
    again(world, _4=2)
    assert world.happened() == []
    again(world, _4=3, _5=6, _16="Traceback:\n  File x\nValueError: no pin 99\n")
    assert "cause Crash: ValueError: no pin 99" in world.notices[-1].message
    assert world.happened() == ["Crashed"]


def test_a_broker_or_bridge_that_was_away_is_no_news_of_boards() -> None:
    """Neither an outage of the broker nor a new bridge tells of ten thousand boards what has not happened to them."""
    world = ready()
    world.happened()
    world.lose_broker()
    world.connect_broker()
    world.send(world.side.here())
    world.answer()
    world.start_bridge()
    world.connect_broker()
    world.wait(2)
    world.answer()
    world.lose_broker()
    world.start_bridge()
    world.connect_broker()
    world.answer()
    assert world.happened() == []
    world.send(world.side.gone())
    assert world.happened() == ["Disconnected"]
    world.start_bridge()
    world.connect_broker()
    world.wait(100)
    assert world.happened() == []
    again(world)
    assert world.happened() == ["Connected"]


def test_a_bridge_that_was_away_tells_what_happened_meanwhile() -> None:
    """A reboot that no bridge saw is told by the next one."""
    world = ready()
    world.happened()
    world.start_bridge()
    again(world, _4=5, _5=3)
    world.connect_broker()
    world.answer()
    assert world.happened() == ["Crashed"]


def test_flapping_is_told_once() -> None:
    """A connection that ends five times in ten minutes is one Flapping, then silence for ten minutes."""
    world = ready(limits=Limits(flapping_ends=5, flapping_s=600))
    world.happened()
    for _ in range(20):
        world.send(world.side.gone())
        world.wait(5)
        again(world)
        world.wait(5)
    told = world.happened()
    assert told.count("Disconnected") == 4
    assert told.count("Flapping") == 1
    assert len(told) == 9
    world.wait(80)
    world.send(world.side.gone())
    world.wait(700)
    again(world)
    world.send(world.side.gone())
    assert world.happened()[-1] == "Disconnected"


def test_sleep_is_no_news() -> None:
    """A board that sleeps and wakes tells nothing; one that is late is Overdue."""
    world = ready()
    world.happened()
    for _ in range(3):
        world.send(world.side.asleep())
        world.wait(600)
        again(world)
    assert world.happened() == []
    world.send(world.side.asleep())
    world.wait(1261)
    assert world.happened() == ["Overdue"]
    again(world)
    assert world.happened() == ["Connected"]


def test_trouble_and_its_end() -> None:
    """An error of properties is told with their names, its end as Resolved; Pending between them is no news."""
    world = ready()
    world.happened()
    world.edit(target=99)
    world.ack()
    assert "target" in world.notices[-1].message
    world.edit(target=98)
    world.wait(2)
    world.ack()
    assert world.happened() == ["PropertyErrors"]
    world.edit(target=20)
    world.wait(2)
    world.ack()
    assert world.notices[-1].message.startswith("PropertyErrors: ")
    assert world.happened() == ["Resolved"]


def test_trouble_is_not_told_again_by_the_next_bridge() -> None:
    """What the status says already is not told anew by a bridge that starts; its end is."""
    world = ready()
    world.send(world.side.report({-3: {0: 6}}))
    assert world.happened() == ["Connected", "PropertyErrors"]
    world.start_bridge()
    world.connect_broker()
    world.send(world.side.full(world.nonce(), _3={0: 6}))
    assert world.happened() == []
    world.send(world.side.report({-3: {0: 0}}))
    assert world.happened() == ["Resolved"]


def test_a_users_error_is_told_while_the_board_is_away() -> None:
    """A model that does not exist is told at once; creating it is Resolved when the board runs it."""
    world = ready()
    world.send(world.side.gone())
    world.happened()
    world.send(ModelSeen(None, "ModelNotFound", "no such model"))
    assert world.happened() == ["ModelNotFound"]
    world.send(ModelSeen(model()))
    world.wait(10)
    assert world.happened() == []
    again(world)
    assert sorted(world.happened()) == ["Connected", "Resolved"]


def test_two_objects_with_one_id() -> None:
    """A Board that is not served tells so once, with the name of the other and what to do; so does the next bridge."""
    world = ready()
    world.happened()
    world.send(ClaimSeen("default/first"))
    assert world.notices[-1].message.endswith(
        "is served for Board default/first, which was there first: delete one of them"
    )
    assert world.happened() == ["DuplicateBoardID"]
    world.start_bridge()
    world.send(ClaimSeen("default/first"))
    assert world.happened() == []
    world.send(ClaimSeen(""))
    world.connect_broker()
    world.answer()
    assert world.happened() == ["Resolved"]


def test_reverted_and_safe_mode() -> None:
    """A desired that killed its board, and a board in safe mode, are told."""
    world = ready()
    world.happened()
    world.edit(target=30)
    desired = world.board.desired
    assert desired is not None
    again(world, _4=3, _15=[2, desired.identity.digest, 5], _17=True)
    assert sorted(world.happened()) == ["Rebooted", "Reverted", "SafeMode"]


def test_refused_messages_are_told_once() -> None:
    """Wrong seals are one notice, however many messages carry them."""
    world = ready()
    world.happened()
    forger = BoardSide(key=b"f" * 32, epoch=world.side.epoch)
    for _ in range(100):
        world.send(forger.report({0: False}))
    assert world.happened() == ["MessagesRefused"]
    world.wait(301)
    world.send(world.side.report({-2: world.side.applied}))
    world.happened()
    world.send(forger.report({0: False}))
    assert world.happened() == ["MessagesRefused"]
