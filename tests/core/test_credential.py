"""Keys and seals: the bridge computes them in C, boards spell them out; both are one definition."""

from __future__ import annotations

from boardlet_bridge.core.credential import KeyRing
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from boardlet_wire.topic import topic
from hypothesis import given
from hypothesis import strategies as st

IDS = st.from_regex(r"[a-z0-9]{8,16}", fullmatch=True)
LETTERS = st.sampled_from("sdrcwfatli")


@given(st.binary(min_size=32, max_size=32), IDS, st.integers(0, 2**32 - 1))
def test_keys_are_those_of_the_wire(root: bytes, board_id: str, number: int) -> None:
    """Every key and password that the bridge derives is the one that seal.py derives for the board."""
    ring, key = KeyRing(root, b"salt"), board_key(root, board_id, number)
    keys = ring.board(board_id, number)
    assert (keys.down, keys.up) == (seal.half_key(key, seal.DOWN), seal.half_key(key, seal.UP))
    assert ring.broker_password(board_id, number) == seal.half_key(key, seal.PASSWORD).hex()[:32]


@given(IDS, LETTERS, st.binary(min_size=8, max_size=8), st.binary(min_size=1, max_size=99), st.data())
def test_seals_are_the_wire_s(board_id: str, letter: str, epoch: bytes, body: bytes, data: st.DataObject) -> None:
    """A seal of the bridge verifies by seal.py and the other way round, and with one bit turned by neither."""
    keys = KeyRing(bytes(32), b"salt").board(board_id)
    context = epoch if letter in "rwfatli" else b""
    down = keys.close(letter, body, epoch)
    opened = seal.verify(keys.down, topic(board_id, letter), context, down, seal.DOWN_TAG)
    assert bytes(opened or b"") == body
    up = body + seal.tag(keys.up, topic(board_id, letter), context, body, seal.UP_TAG)
    mine = keys.open(letter, up, epoch)
    assert bytes(mine or b"") == body
    at = data.draw(st.integers(0, 8 * len(up) - 1))
    turned = bytearray(up)
    turned[at // 8] ^= 1 << at % 8
    assert keys.open(letter, bytes(turned), epoch) is None


@given(st.binary(max_size=8))
def test_a_payload_without_a_body_is_refused(payload: bytes) -> None:
    """What is not longer than a seal is no message."""
    assert KeyRing(bytes(32), b"salt").board("k7m2q9xa").open("s", payload, b"") is None
