"""The board's half of a rotation, with a real broker: wherever its power is cut, it comes back and finishes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable

import cbor2
import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from bridge_side import BOARD_ID, ROOT, Peer
from broker import Broker
from virtualboard import VirtualBoard

MakeBoard = Callable[..., VirtualBoard]
RING = KeyRing(ROOT, bytes(16))
ASK_S = 0.3


def command(peer: Peer, number: int = 2, held: int = 1, nonce: bytes = b"nonce--1") -> dict[int, object]:
    """The body that carries a board's next key, in its present session."""
    block = seal.hmac(board_key(ROOT, BOARD_ID, held), b"rotate\x00", nonce)
    wrapped = bytes(a ^ b for a, b in zip(board_key(ROOT, BOARD_ID, number), block, strict=True))
    return {0: nonce, 1: 2, 2: peer.epoch, 5: [number, wrapped]}


def speak(peer: Peer, number: int = 2) -> None:
    """Listen to the board, and speak to it, under this key from now on."""
    peer.keys = RING.board(BOARD_ID, number)


def give(peer: Peer, number: int = 2, held: int = 1) -> None:
    """Send the key; returns when the board has begun a session under it."""
    births = len(peer.sessions)
    peer.send("c", command(peer, number, held))
    peer.until(lambda: peer.paho.want_write() is False)
    speak(peer, number)
    peer.until(lambda: any(s[3] == number and s[1] == 1 for s in peer.sessions[births:]))


def let_in(broker: Broker, number: int = 2) -> None:
    """The broker takes the password of this key, and throws off who came with another."""
    broker.add_user(BOARD_ID, RING.broker_password(BOARD_ID, number))


def config(board: VirtualBoard) -> dict[str, object]:
    found: dict[str, object] = json.loads((board.flash / "config.json").read_text())
    return found


def number(board: VirtualBoard) -> object:
    return config(board)["key_number"]


def holds_both(board: VirtualBoard) -> bool:
    return (board.flash / "keys").exists()


def over(board: VirtualBoard, peer: Peer) -> None:
    """Ask as a bridge does until the board, in its new session, holds the new key alone."""
    again = 0.0

    def settled() -> bool:
        nonlocal again
        if time.monotonic() > again:
            again = time.monotonic() + ASK_S
            peer.ask()
        return not holds_both(board)

    peer.until(settled)
    assert config(board)["key"] == board_key(ROOT, BOARD_ID, peer.keys.number).hex()
    assert number(board) == peer.keys.number


def test_a_key_is_changed_without_a_reset(board: VirtualBoard, broker: Broker, peer: Peer) -> None:
    """It speaks under the new key at once, logs in with it once it is let in, then forgets the old; outputs stay."""
    peer.desire({0: True})
    peer.applied(1)
    boots = peer.here()[4]
    give(peer)
    assert holds_both(board)
    assert number(board) == 1
    peer.full(b"before--")
    assert holds_both(board), "it has not logged in with it yet"
    let_in(broker)
    over(board, peer)  # thrown off, it has logged in anew
    assert number(board) == 2
    assert board.pin(2) == 1
    assert peer.full(b"after---")[-7] == {0: 0, 1: 0, 2: 0, 3: 0}, "nothing of it looked like a forgery"
    assert peer.here()[4] == boots, "it never booted"
    give(peer, 3, held=2)
    let_in(broker, 3)
    over(board, peer)


def test_the_old_mailbox_is_no_forgery(board: VirtualBoard, broker: Broker, peer: Peer) -> None:
    """What is retained for the old key, and read under the new one, is neither taken nor counted as an attack."""
    peer.desire({0: True})
    peer.applied(1)
    give(peer)
    assert peer.full(b"between-")[-7] == {0: 0, 1: 0, 2: 0, 3: 0}
    peer.publish("d", b"\xa0" + bytes(16))
    assert peer.full(b"counted-")[-7][0] == 1


@pytest.mark.parametrize("let_in_first", [False, True])
def test_a_power_cut_while_both_are_held(board: VirtualBoard, broker: Broker, peer: Peer, let_in_first: bool) -> None:
    """Before the broker changes or after: it boots with both, is let in with one of them, and finishes."""
    give(peer)
    board.kill()
    assert holds_both(board)
    assert number(board) == 1
    if let_in_first:
        let_in(broker)
    births = len([s for s in peer.sessions if s[1] == 1])
    board.start()
    peer.here(births + 1)
    if not let_in_first:
        let_in(broker)
    over(board, peer)


def test_a_power_cut_while_the_new_one_is_written(board: VirtualBoard, broker: Broker, peer: Peer) -> None:
    """config.json torn in the middle: the board has both keys still, and finishes at its next boot."""
    give(peer)
    board.kill()
    let_in(broker)
    (board.flash / "config.json").write_text('{"id": "k7m2q9x')
    board.start()
    over(board, peer)


def test_a_power_cut_before_the_old_one_is_dropped(board: VirtualBoard, broker: Broker, peer: Peer) -> None:
    """config.json has the new key already: the next boot drops what is left and goes on under the new key alone."""
    give(peer)
    shutil.copytree(board.flash / "keys", board.folder / "kept")
    let_in(broker)
    over(board, peer)
    board.kill()
    shutil.copytree(board.folder / "kept", board.flash / "keys")
    births = len([s for s in peer.sessions if s[1] == 1])
    board.start()
    peer.here(births + 1)
    assert not holds_both(board)
    assert number(board) == 2


def test_a_board_that_was_flashed_meanwhile_keeps_what_it_was_flashed_with(
    board: VirtualBoard, broker: Broker, peer: Peer
) -> None:
    """Keys of a rotation that a flash overtook are dropped."""
    give(peer)
    board.kill()
    board.configure({**config(board), "key": board_key(ROOT, BOARD_ID, 3).hex(), "key_number": 3})
    let_in(broker, 3)
    speak(peer, 3)
    births = len([s for s in peer.sessions if s[1] == 1])
    board.start()
    peer.here(births + 1)
    assert not holds_both(board)
    assert number(board) == 3


def test_what_is_repeated_or_made_up_does_nothing(board: VirtualBoard, broker: Broker, peer: Peer) -> None:
    """Another session's command, a number that does not rise, a wrong length, and all of it again after the change."""
    stale = {**command(peer), 2: b"another1"}
    for body in (stale, command(peer, 1), {**command(peer), 5: [2, bytes(31)]}, {**command(peer), 5: ["2", bytes(32)]}):
        peer.send("c", body)
    peer.full(b"still---")
    assert not holds_both(board)
    recorded = peer.keys.close("c", cbor2.dumps(command(peer)))
    give(peer)
    let_in(broker)
    over(board, peer)
    dropped = peer.full(b"count--1")[-7][0]
    peer.publish("c", recorded)
    assert peer.full(b"count--2")[-7][0] == dropped + 1
    assert not holds_both(board)
    assert number(board) == 2


def test_a_board_without_rotation_stays_as_it_is(make_board: MakeBoard, peer: Peer) -> None:
    """A missing file is a missing feature: the command changes and crashes nothing."""
    board = make_board()
    shutil.rmtree(board.flash / "rotation")
    board.start()
    peer.here()
    peer.send("c", command(peer))
    assert peer.full(b"still---")[-7][0] == 0
    assert number(board) == 1
    assert not holds_both(board)


NVS = """
import os
class NVS:
    def __init__(self, name):
        pass
    def get_blob(self, name, buf):
        with open("nvs") as f:
            text = f.read()
        buf[:len(text)] = text.encode()
        return len(text)
    def set_blob(self, name, text):
        if "full" in os.listdir():
            raise OSError(28)
        with open("nvs", "w") as f:
            f.write(text)
    def commit(self):
        pass
"""


@pytest.mark.parametrize("full", [False, True])
def test_the_copy_in_nvs_brings_no_old_key_back(make_board: MakeBoard, broker: Broker, peer: Peer, full: bool) -> None:
    """An ESP32's copy of config.json gets the new key; where it cannot be written, what it holds is not used."""
    board = make_board()
    (board.flash / "esp32.py").write_text(NVS)
    board.start()
    peer.here()
    assert json.loads((board.flash / "nvs").read_text())["key_number"] == 1
    if full:
        (board.flash / "full").touch()
    give(peer)
    let_in(broker)
    over(board, peer)
    board.kill()
    births = len([s for s in peer.sessions if s[1] == 1])
    board.start()
    peer.here(births + 1)
    assert peer.here()[3] == 2
    assert json.loads((board.flash / "nvs").read_text())["key_number"] == 2 - full
