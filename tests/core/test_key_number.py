"""Key numbers: what is revoked stays so, whoever comes with it and whichever bridge is asked."""

from __future__ import annotations

import copy

from boardlet_bridge.core.event import BrokerUp
from peer import World, model, ready


def credential(world: World, number: int, revoked: int) -> None:
    """kubectl patch of spec.credential."""
    world.object["spec"]["credential"] = {"keyNumber": number, "revokedKeyNumber": revoked}
    world.touch()


def revoked() -> World:
    """A board that was Ready when all of its keys were revoked."""
    world = ready()
    credential(world, 1, 1)
    return world


def flashed_anew(world: World) -> World:
    """The board with its second key; the first one is revoked."""
    credential(world, 2, 1)
    world.side.number = 2
    world.side.applied = None
    world.join()
    world.ack()
    return world


def test_a_revoked_board_is_shut_out_at_once() -> None:
    """No login, an empty mailbox, a status that says so; none of it waits for the board."""
    world = revoked()
    assert world.board.login == 0
    assert world.retained == {"d": b"", "s": b""}
    assert world.condition("Ready") == ("False", "Revoked")
    assert world.condition("Synced") == ("Unknown", "Revoked")
    assert "Revoked" in world.happened()


def test_what_a_revoked_board_says_moves_nothing() -> None:
    """Births, reports and wants under the revoked key change no status but MessagesRefused, and are not answered."""
    world = revoked()
    asked = world.count("c")
    world.send(world.side.here(), world.side.report({0: False}), world.side.want(bytes(8), 0, 100))
    world.wait(60)
    assert world.count("c") == asked
    assert world.count("f") == 0
    assert world.status["reported"]["led"] is True, "as the board said before"
    assert world.condition("Connected") == ("False", "Revoked")
    assert world.condition("MessagesRefused") == ("True", "RevokedKey")
    assert world.retained["s"] == b"", "its birth does not stay for the next bridge"


def test_the_end_of_a_revoked_connection_is_no_attack() -> None:
    """The will of the connection that the broker ends is expected."""
    world = revoked()
    world.send(world.side.gone())
    assert "MessagesRefused" not in {c["type"] for c in world.status["conditions"]}


def test_the_next_bridge_knows_what_is_revoked() -> None:
    """The object is the memory: a new bridge lets in nobody and clears what the broker kept of that key."""
    world = ready()
    old = dict(world.retained)
    credential(world, 1, 1)
    world.retained = old
    world.start_bridge()
    assert world.board.login == 0
    world.connect_broker()
    assert world.retained == {"d": b"", "s": b""}
    assert world.condition("Connected") == ("False", "Revoked")


def test_a_broker_that_was_away_is_cleared_when_it_is_back() -> None:
    """A revocation while the broker is away empties the mailbox when it is there again."""
    world = ready()
    world.lose_broker()
    credential(world, 1, 1)
    assert world.retained["d"] != b""
    world.connect_broker()
    assert world.retained["d"] == b""
    assert world.condition("Connected") == ("False", "Revoked")


def test_flashed_with_the_next_key_it_is_back() -> None:
    """The successor of a revoked key is let in, served from a mailbox of its own, and becomes Ready."""
    world = flashed_anew(revoked())
    assert world.board.login == 2
    assert world.condition("Ready") == ("True", "Synced")
    assert world.status["board"]["keyNumber"] == 2
    assert world.revision() == 1, "a revision never falls, and need not rise: it is the same state"


def test_the_old_key_opens_nothing_after_its_successor() -> None:
    """Who has stolen the first key can neither speak for the board nor move its revision."""
    world = flashed_anew(revoked())
    epoch = world.side.epoch
    thief = copy.deepcopy(world.side)
    thief.number, thief.epoch = 1, b"stolen-1"
    thief.applied = [thief.applied[0], 2**31 - 1, bytes(8), 9] if thief.applied else None
    world.send(thief.here(), thief.gone(epoch), thief.report({0: False}))
    assert world.condition("MessagesRefused")[0] == "True"
    assert world.board.epoch == epoch
    assert world.status["reported"]["led"] is True
    world.edit(led=False)
    world.ack()
    assert world.revision() == 2


def test_a_restored_cluster_does_not_take_an_old_key_back() -> None:
    """Once the board has spoken under its second key, an older object that knows the first alone changes nothing."""
    world = ready()
    backup = copy.deepcopy(world.object)
    flashed_anew(world)
    world.object = backup
    world.start_bridge()
    assert world.board.login == 1, "before the broker has told what it retains, nobody can know better"
    world.connect_broker()
    assert world.board.login == 2
    world.answer()
    assert world.status["board"]["keyNumber"] == 2
    thief = copy.deepcopy(world.side)
    thief.number, thief.epoch = 1, b"stolen-1"
    world.send(thief.here())
    assert world.condition("MessagesRefused") == ("True", "RevokedKey")


def test_a_number_that_a_message_claims_is_worth_nothing_without_its_seal() -> None:
    """A birth that names a high number under the old key, or random bytes, moves no number."""
    world = ready()
    world.side.epoch = b"forged-1"
    world.send(world.side.here(_3=7))
    assert world.board.keys.number == 1
    world.side.key = b"f" * 32
    world.side.number = 9
    world.send(world.side.here(), world.side.gone())
    assert world.board.keys.number == 1
    assert world.condition("MessagesRefused") == ("True", "WrongSeal")


def test_a_board_that_nobody_has_heard_yet_may_hold_an_earlier_key() -> None:
    """An object made with number 2 serves the board that was flashed with number 1, unless that is revoked."""
    world = World()
    world.object["spec"]["credential"] = {"keyNumber": 2, "revokedKeyNumber": 0}
    world.start_bridge()
    world.send(BrokerUp())
    world.side.model = model().digest
    world.send(world.side.here())
    world.answer()
    assert world.board.login == 1
    assert world.revision() == 1, "its mailbox is sealed for it"
    world.ack()
    assert world.condition("Ready") == ("True", "Synced")
