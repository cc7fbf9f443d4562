"""Rotation over the air: no step of it locks a board out, and the old key ends when the board has the new one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import boardlet_wire as wire
import cbor2
import pytest
from boardlet_bridge.core import enrollment, rotation
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.event import Message
from boardlet_bridge.core.root_key import RootKey
from boardlet_bridge.core.rotation import MOST_S
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from peer import BOARD_ID, ROOT, World, ready

NEW_ROOT = RootKey(100, bytes(range(100, 132)))


def rotate(world: World, number: int = 2, revoked: int = 0) -> None:
    """kubectl patch of spec.credential."""
    world.object["spec"]["credential"] = {"keyNumber": number, "revokedKeyNumber": revoked, "rotation": "OverTheAir"}
    world.touch()


def offers(world: World) -> list[dict[int, Any]]:
    """The commands that carry a key, as the board opens them under the key that it holds."""
    opened = []
    for message in world.published:
        half = world.side.half(seal.DOWN)
        body = seal.verify(half, f"b/{_bucket()}/{BOARD_ID}/c", b"", message.payload, seal.DOWN_TAG)
        if message.letter == "c" and body is not None and (found := cbor2.loads(bytes(body)))[1] == 2:
            opened.append(found)
    return opened


def _bucket() -> str:
    return World().board.keys.prefix.split("/")[1]


def take(world: World) -> None:
    """What a board does with the latest offer: it unwraps the key, and begins a session under it."""
    offer = offers(world)[-1]
    assert offer[2] == world.side.epoch
    number, wrapped = offer[5]
    held = world.side.key or board_key(ROOT, BOARD_ID, world.side.number)
    world.send(world.side.gone())
    world.side.key = bytes(a ^ b for a, b in zip(wrapped, seal.hmac(held, b"rotate\x00", offer[0]), strict=True))
    world.side.number = number
    world.side.epoch, world.side.sequence = b"rotated" + bytes([number]), 0
    world.send(world.side.here())
    world.side.apply(world.retained["d"])  # which is sealed for it now
    world.answer()


def rotating(world: World) -> bool:
    return "Rotating" in {c["type"] for c in world.status["conditions"]}


def test_a_board_that_is_there_gets_its_key_at_once() -> None:
    """The login changes when the board has spoken under the new key and not before; the board stays Ready."""
    world = ready()
    rotate(world)
    world.ack()
    assert (world.board.login, rotating(world), len(offers(world))) == (1, True, 1)
    assert world.condition("Ready") == ("True", "Synced")
    take(world)
    assert world.side.key == board_key(ROOT, BOARD_ID, 2)
    assert (world.board.login, rotating(world)) == (2, False)
    assert world.status["board"]["keyNumber"] == 2
    assert world.condition("Ready") == ("True", "Synced")
    assert world.revision() == 1, "its mailbox is sealed anew, and asks for the same"


def test_a_board_that_is_away_keeps_its_key() -> None:
    """For however long. The new one is the first that it hears when it is back: once it has answered it may sleep."""
    world = ready()
    world.send(world.side.gone())
    rotate(world)
    world.wait(30 * 86400)
    assert (world.board.login, offers(world), rotating(world)) == (1, [], True)
    world.start_bridge()
    world.connect_broker()
    assert world.board.login == 1
    sent = len(world.published)
    world.join()
    asked = [cbor2.loads(p.payload[: -seal.DOWN_TAG])[1] for p in world.published[sent:] if p.letter == "c"]
    assert asked[0] == 2, asked
    take(world)
    assert world.board.login == 2


def test_a_board_that_fell_asleep_gets_it_in_its_next_turn() -> None:
    """A board that sleeps is sent nothing until it wakes."""
    world = ready()
    world.object["spec"]["settings"] = {"sleepSeconds": 600}
    world.touch()
    world.ack()
    world.send(world.side.asleep())
    rotate(world)
    world.wait(500)
    assert offers(world) == []
    world.join()
    take(world)
    assert world.board.login == 2


def test_a_board_that_lost_it_is_sent_it_again() -> None:
    """Lost on its way, or by a power cut before it was kept: the present key holds, the next session has an offer."""
    world = ready()
    rotate(world)
    world.join()
    first, second = offers(world)[-2:]
    assert first[0] != second[0]
    assert first[2] != second[2]
    assert first[5] != second[5], "the same key is never wrapped alike"
    assert world.board.login == 1
    take(world)
    assert world.board.login == 2


def test_an_agent_without_rotation_costs_little() -> None:
    """A board that never takes it is offered it less and less often, keeps its key, and its Board says what to do."""
    world = ready()
    rotate(world)
    world.ack()
    for _ in range(24 * 60):
        world.wait(60)
        world.send(world.side.report({-4: 1}))
        if world.board.nonce:
            world.answer()
    assert 86400 / MOST_S - 10 <= len(offers(world)) <= 86400 / MOST_S + 10
    assert world.condition("Ready") == ("True", "Synced")
    said = next(c["message"] for c in world.status["conditions"] if c["type"] == "Rotating")
    assert "flash it" in said


def test_the_old_key_ends_with_the_new_one() -> None:
    """Whoever has the old key alone speaks for nobody from then on, and is shown; a restored object changes nothing."""
    world = ready()
    backup = copy.deepcopy(world.object)
    rotate(world)
    thief = copy.deepcopy(world.side)
    take(world)
    epoch = world.board.epoch
    world.send(thief.report({0: False}), thief.here(), thief.gone(epoch))
    assert (world.board.epoch, world.board.login) == (epoch, 2)
    assert world.condition("MessagesRefused") == ("True", "RevokedKey")
    world.retained["s"] = world.side.here().payload
    world.object = backup
    world.start_bridge()
    world.connect_broker()
    assert world.board.login == 2


def test_a_bridge_that_dies_between_the_steps_loses_no_board() -> None:
    """After the board has spoken, and before a status says so, the next bridge learns of it from what is retained."""
    world = ready()
    rotate(world)
    status = copy.deepcopy(world.object["status"])
    take(world)
    world.object["status"] = status
    world.start_bridge()
    world.connect_broker()
    assert world.board.login == 2
    world.answer()
    assert world.status["board"]["keyNumber"] == 2


def test_the_old_key_sets_no_revision() -> None:
    """A mailbox under a key before the one in use, put there by who has that key, is replaced and moves nothing."""
    world = ready()
    rotate(world)
    mailed = cbor2.loads(world.retained["d"][: -seal.DOWN_TAG])
    thief = world.board.keys
    take(world)
    world.send(Message("d", thief.close("d", cbor2.dumps({**mailed, 1: 2**31 - 1}))))
    world.wait(10)
    assert (world.revision(), world.refused[-1]) == (1, "former_key")
    world.edit(led=False)
    world.ack()
    assert world.condition("Ready") == ("True", "Synced")
    assert world.revision() == 2


@pytest.mark.parametrize("number", [2, 100])
@pytest.mark.parametrize("mailed", [True, False])
def test_a_bridge_that_died_in_a_rotation_raises_no_alarm(number: int, mailed: bool) -> None:
    """Before a status, or before the mailbox was sealed anew: what the next bridge finds is nobody's forgery."""
    world = ready()
    rotate(world, number)
    status, mailbox = copy.deepcopy(world.object["status"]), world.retained["d"]
    take(world)
    if mailed:
        world.object["status"] = status
    else:
        world.retained["d"] = mailbox
    world.start_bridge()
    world.connect_broker()
    world.answer()
    assert "MessagesRefused" not in {c["type"] for c in world.status["conditions"]}
    assert world.condition("Ready") == ("True", "Synced")
    assert (world.board.login, world.revision()) == (number, 1)


def test_a_board_that_is_created_again_says_how_it_comes_back() -> None:
    """With neither status nor retained session nobody knows that it had the new key: its Board says what to set."""
    world = ready()
    rotate(world)
    take(world)
    world.object["status"] = {}
    world.retained.clear()
    world.start_bridge()
    world.connect_broker()
    world.wait(600)
    assert world.board.login == 1, "as of a board that was flashed and has not come yet"
    said = next(c["message"] for c in world.status["conditions"] if c["type"] == "Rotating")
    assert "set spec.credential.revokedKeyNumber to 1" in said
    rotate(world, 2, revoked=1)
    assert world.board.login == 2
    world.join()
    assert world.condition("Ready") == ("True", "Synced")


def test_a_revocation_in_the_middle_holds_at_once() -> None:
    """The present key is shut out whatever was under way; with the next number too, both are."""
    world = ready()
    rotate(world)
    rotate(world, 2, revoked=1)
    world.send(world.side.here(), world.side.report({0: False}))
    assert world.status["reported"]["led"] is True
    assert not rotating(world)
    rotate(world, 2, revoked=2)
    assert world.board.login == 0
    assert world.condition("Ready") == ("False", "Revoked")


def test_flashing_is_no_rotation() -> None:
    """Where the object does not say OverTheAir, no key is ever sent."""
    world = ready()
    world.object["spec"]["credential"] = {"keyNumber": 2, "revokedKeyNumber": 0}
    world.touch()
    world.wait(60)
    assert (offers(world), world.board.login) == ([], 1)


def test_the_next_root_key_comes_over_the_air() -> None:
    """While two root keys are served, a board of the old one is given a key of the new one, and the count follows."""
    world = ready()
    patch = pytest.MonkeyPatch()
    patch.setattr("peer.RING", KeyRing(NEW_ROOT.key, b"t" * 16, NEW_ROOT.first, (RootKey(1, ROOT),)))
    world.start_bridge()
    patch.undo()
    world.connect_broker()
    world.answer()
    assert world.board.root_number == 1
    rotate(world, 100)
    take(world)
    assert world.side.key == board_key(NEW_ROOT.key, BOARD_ID, 100)
    assert (world.board.login, world.board.root_number) == (100, 100)


def test_a_key_that_was_given_by_an_older_file_of_root_keys_is_flashed_away() -> None:
    """A board that was moved while the older file was back has a number of the old root: it is shut out, by name."""
    world = ready()
    rotate(world, 100)
    take(world)  # the new root is not in the file
    assert world.side.key == board_key(ROOT, BOARD_ID, 100)
    patch = pytest.MonkeyPatch()
    patch.setattr("peer.RING", KeyRing(NEW_ROOT.key, b"t" * 16, NEW_ROOT.first, (RootKey(1, ROOT),)))
    world.start_bridge()
    patch.undo()
    world.connect_broker()
    world.side.epoch = b"healed-1"
    world.send(world.side.here())
    world.wait(60)
    assert world.condition("Ready")[0] != "True"
    assert world.condition("MessagesRefused") == ("True", "WrongSeal")
    world.object["spec"]["credential"] = {"keyNumber": 101, "revokedKeyNumber": 100}
    world.touch()
    world.side.key, world.side.number, world.side.applied = board_key(NEW_ROOT.key, BOARD_ID, 101), 101, None
    world.join()
    world.ack()
    assert world.condition("Ready") == ("True", "Synced")


def test_a_key_under_way_is_given_to_no_other_chip() -> None:
    """Enrolment hands out no number that was, or will be, sent to the board that there is."""
    board = {
        "metadata": {"name": "g"},
        "spec": {"boardID": BOARD_ID, "credential": {"keyNumber": 2, "revokedKeyNumber": 0, "rotation": "OverTheAir"}},
        "status": {"board": {"keyNumber": 1}},
    }
    key = enrollment.key_for(board, BOARD_ID, 1)
    assert (key.number, "keyNumber: 3, revokedKeyNumber: 2" in key.why) == (0, True)


def test_it_is_wrapped_as_the_protocol_has_it() -> None:
    """What the bridge sends is byte for byte the vector that independent code made."""
    vectors = json.loads((Path(wire.__file__).parent / "vectors.json").read_text())
    [vector] = [m for m in vectors["messages"] if m["name"] == "take the next key"]
    world = ready()
    world.board.ring = KeyRing(bytes.fromhex(vectors["root"]), b"t" * 16)
    world.board.keys = world.board.ring.board(vectors["board"])
    world.board.epoch = bytes.fromhex(vectors["epoch"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyRing, "nonce", lambda *_: bytes(range(8)))
        rotate(world)
    [sent] = [p.payload for p in world.published if p.letter == "c" and len(p.payload) > 60]
    assert sent.hex() == vector["payload"]


def test_the_login_waits_for_the_status() -> None:
    """While the API server takes no status, the board goes on with its old password: no bridge could know better."""
    world = ready()
    rotate(world)
    status = copy.deepcopy(world.object["status"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "write", lambda _: None)
        take(world)
        assert (world.board.keys.number, world.board.login) == (2, 1)
    world.object["status"] = status
    world.retained = {}
    world.start_bridge()
    world.connect_broker()
    assert world.board.login == 1, "the store of the broker was lost too, and the board is let in all the same"
    world.send(world.side.here())
    world.answer()
    assert world.board.login == 2


def test_a_replica_that_keeps_the_logins_follows_the_status() -> None:
    """A bridge that does not hear the board lets it in by what another one has written of it."""
    world = World()
    rotate(world)
    assert world.board.login == 1
    world.object["status"] = {"board": {"keyNumber": 2}}
    world.touch()
    assert (world.board.login, world.board.root_number) == (2, 1)
    assert not rotation.under_way(world.board)
