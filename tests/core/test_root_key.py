"""Root keys: a site replaces its root key while boards keep working, and what follows from the old one ends with it."""

from __future__ import annotations

import copy

import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.root_key import RootKey, RootKeyInvalid, RootKeys, only, parse, serving
from boardlet_wire.keys import board_key
from hypothesis import given
from hypothesis import strategies as st
from peer import BOARD_ID, RING, ROOT, World, ready

OLD, NEW = RootKey(1, ROOT), RootKey(100, bytes(range(100, 132)))
SALT = b"t" * 16


def restart(world: World, *keys: RootKey) -> World:
    """A new bridge with these root keys, as after an edit of the Secret; the newest comes first."""
    return with_ring(world, KeyRing.of(tuple(keys), SALT))


def with_ring(world: World, ring: KeyRing) -> World:
    patch = pytest.MonkeyPatch()
    patch.setattr("peer.RING", ring)
    try:
        world.start_bridge()
    finally:
        patch.undo()
    world.connect_broker()
    return world


def give(world: World, number: int) -> None:
    """kubectl patch of spec.credential: the keys before this one are revoked."""
    world.object["spec"]["credential"] = {"keyNumber": number, "revokedKeyNumber": number - 1}
    world.touch()


def flashed(world: World, root: RootKey, number: int) -> World:
    """The board with the key of this number and root."""
    give(world, number)
    world.side.key, world.side.number = board_key(root.key, BOARD_ID, number), number
    world.side.applied = None
    world.join()
    world.ack()
    return world


def message(world: World) -> str:
    return next(str(c["message"]) for c in world.status["conditions"] if c["type"] == "Connected")


def test_boards_of_both_roots_are_served() -> None:
    """While there are two root keys, a board under either is Ready, and its login is that of its own key."""
    ring = KeyRing.of((NEW, OLD), SALT)
    world = restart(ready(), NEW, OLD)
    world.answer()
    assert world.condition("Ready") == ("True", "Synced")
    assert (world.board.login, world.board.root_number) == (1, 1)
    assert ring.broker_password(BOARD_ID, 1) == RING.broker_password(BOARD_ID, 1)
    flashed(world, NEW, 100)
    assert world.condition("Ready") == ("True", "Synced")
    assert (world.board.login, world.board.root_number) == (100, 100)
    assert ring.broker_password(BOARD_ID, 100) == KeyRing(NEW.key, SALT).broker_password(BOARD_ID, 100)
    assert world.revision() == 1, "it is the same state, sealed for another key"


def test_a_board_of_the_old_root_says_so() -> None:
    """The condition Connected names the number that the board is to get, and no more of it once it has."""
    world = ready()
    assert "root key" not in message(world)
    restart(world, NEW, OLD).answer()
    world.wait(20)
    assert "give it number 100" in message(world)
    flashed(world, NEW, 100)
    assert "root key" not in message(world)


def test_who_has_the_old_root_speaks_for_no_board_that_was_moved() -> None:
    """With the old root key itself, no number seals a word of a moved board: neither its old one, nor one above."""
    world = flashed(restart(ready(), NEW, OLD), NEW, 100)
    epoch = world.side.epoch
    for number in (1, 2, 99, 100, 101, 2**31 - 1):
        thief = copy.deepcopy(world.side)
        thief.epoch, thief.number, thief.key = b"stolen-1", number, board_key(OLD.key, BOARD_ID, number)
        world.send(thief.here(), thief.report({0: False}), thief.gone(epoch))
    assert (world.board.epoch, world.board.keys.number) == (epoch, 100)
    assert world.status["reported"]["led"] is True
    assert world.condition("MessagesRefused")[0] == "True"


def test_after_the_removal_the_old_root_is_refused() -> None:
    """A board that was not moved is shut out when its root key goes, in words that say what to do."""
    world = restart(restart(ready(), NEW, OLD), NEW)
    assert world.board.login == 0
    assert world.board.rootless
    assert world.retained == {"d": b"", "s": b""}
    world.wait(20)
    assert world.condition("Ready") == ("False", "Revoked")
    assert "root key" in message(world)
    assert "number 100" in message(world)
    asked = world.count("c")
    world.send(world.side.here(), world.side.report({0: False}))
    assert (world.count("c"), world.status["reported"]["led"]) == (asked, True)
    flashed(world, NEW, 100)
    assert world.condition("Ready") == ("True", "Synced")


def test_a_removal_that_came_too_soon_is_taken_back() -> None:
    """With the old root key in its place again, the board that was shut out is served as before."""
    world = restart(restart(ready(), NEW), NEW, OLD)
    assert world.board.login == 1
    world.join()
    world.answer()
    assert world.condition("Ready") == ("True", "Synced")


def connect(world: World) -> None:
    """The board connects with what it holds; nothing that is sealed otherwise reaches it."""
    world.side.epoch = bytes([world.side.epoch[0] + 1]) + world.side.epoch[1:]
    world.send(world.side.here(), world.side.report({0: False}))


def test_an_older_file_of_root_keys_moves_nothing_and_is_healed() -> None:
    """A moved board is locked out while the older file is there, told as a wrong root key; then all is as it was."""
    world = flashed(restart(ready(), NEW, OLD), NEW, 100)
    own = KeyRing.of((NEW, OLD), SALT).broker_password(BOARD_ID, 100)
    restart(world, OLD)
    assert world.board.login == 100, "numbers do not fall"
    assert KeyRing.of((OLD,), SALT).broker_password(BOARD_ID, 100) != own, "the broker lets it in no more"
    connect(world)
    world.wait(250)
    assert world.condition("Ready")[0] != "True"
    assert "the bridge's root_key_file is not this site's" in message(world)
    assert world.condition("MessagesRefused") == ("True", "WrongSeal")
    assert world.status["reported"]["led"] is True
    assert world.status["board"]["keyNumber"] == 100
    restart(world, NEW, OLD)
    world.join()
    assert world.condition("Ready") == ("True", "Synced")
    assert (world.board.login, world.revision(), world.side.key) == (100, 1, board_key(NEW.key, BOARD_ID, 100))


def test_who_has_the_old_root_is_believed_while_its_file_is_back() -> None:
    """Under an older file he seals as a board that was moved away from his root; with the right one no more."""
    world = flashed(restart(ready(), NEW, OLD), NEW, 100)
    thief = copy.deepcopy(world.side)
    thief.epoch, thief.key = b"stolen-1", board_key(OLD.key, BOARD_ID, 100)
    restart(world, OLD)
    world.send(thief.here())
    assert world.board.epoch == thief.epoch
    restart(world, NEW, OLD)
    world.join()
    world.send(thief.here(), thief.report({0: False}))
    assert world.board.epoch == world.side.epoch
    assert world.condition("Ready") == ("True", "Synced")


def test_a_moved_board_does_not_notice_the_removal() -> None:
    """A board under the new root key stays Ready, and its mailbox as it is."""
    world = flashed(restart(ready(), NEW, OLD), NEW, 100)
    mailbox = world.retained["d"]
    restart(world, NEW).answer()
    assert world.condition("Ready") == ("True", "Synced")
    assert world.retained["d"] == mailbox


def test_a_revoked_board_is_not_taken_for_a_rootless_one() -> None:
    """Whom the object revokes is told that, whatever root keys there are."""
    world = restart(ready(), NEW, OLD)
    world.object["spec"]["credential"] = {"keyNumber": 1, "revokedKeyNumber": 1}
    world.touch()
    assert not world.board.rootless
    assert "raise spec.credential.keyNumber above" in message(world)


@given(st.integers(1, 2**31 - 1), st.sets(st.integers(2, 2**31 - 1), max_size=3))
def test_a_number_follows_from_the_nearest_root_below_it(number: int, firsts: set[int]) -> None:
    """Each number has exactly one root key, that of the highest first number which is not above it."""
    text = "\n".join(f"{first} {index:064x}" for index, first in enumerate({1, *firsts}))
    keys = parse(text)
    assert serving(keys, number).first == max(first for first in {1, *firsts} if first <= number)
    assert serving(keys, number).key.hex() in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1"),
        ("abc", "line 1"),
        ("a" * 63, "line 1"),
        (f"1 {'a' * 64}\n{'b' * 60}", "line 2"),
        (f"0 {'a' * 64}", "line 1"),
        (f"{'a' * 64}\n{'b' * 64}", "differ"),
        (f"1 {'a' * 64}\n2 {'a' * 64}", "differ"),
        (f"9999999999 {'a' * 64}", "differ"),
        ("\n".join(f"{n} {n:064x}" for n in range(1, 6)), "5 root keys"),
    ],
)
def test_what_is_no_root_key_is_said_without_it(text: str, said: str) -> None:
    """A wrong file names the line or the number, and no digit of a key."""
    with pytest.raises(RootKeyInvalid, match=said) as caught:
        parse(text)
    assert "aaaa" not in str(caught.value)


def test_a_file_of_one_key_is_what_it_was() -> None:
    """64 digits alone serve all numbers; keys show in no repr."""
    keys: RootKeys = parse(f"{'ab' * 32}\n")
    assert keys == only(bytes.fromhex("ab" * 32))
    assert "ab" * 32 not in repr(keys) + repr(KeyRing.of(keys, SALT))
    with pytest.raises(RootKeyInvalid, match="to 100"):
        serving((NEW,), 99)
