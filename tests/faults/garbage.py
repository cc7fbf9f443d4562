"""Payloads that nobody should send: noise, cut and flipped messages, and nonsense sealed by the right key."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import cbor2
from boardlet_bridge.core.credential import BoardKeys
from boardlet_wire import seal
from boardlet_wire.names import EPOCH_SEALED
from boardlet_wire.topic import topic

HUGE_BYTES: Final = 200 * 1024
# Bodies that a CBOR reader may trip over: depth, lengths that lie, types where others are due, what the subset forbids.
NONSENSE: Final[tuple[bytes, ...]] = (
    b"",
    b"\x81" * 400 + b"\x00",
    b"\xa1\x00" * 300 + b"\x00",
    b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x5a\x7f\xff\xff\xff" + b"x" * 20,
    b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00",
    b"\xba\xff\xff\xff\xff\x00\x00",
    b"\x9a\x0f\xff\xff\xff\x00",
    b"\xbf\x00\x01\xff",
    b"\x7f\x61a\xff",
    b"\xc2\x58\x20" + b"\xff" * 32,
    b"\xd8\x1c\x81\xd8\x1d\x00",
    b"\xa1\x03\xf9\x7e\x00",
    b"\xa1\x00\x62\xff\xfe",
    b"\xa2\x00\x01\x00\x02",
    b"\xa1\xf6\xf6",
    b"\xf7",
    b"\x00",
    *(
        cbor2.dumps(value)
        for value in (
            {},
            [],
            "text",
            {0: None, 1: None, 2: None, 3: None},
            {0: b"short", 1: -1, 2: -1, 3: b"\xff"},
            {0: b"\x01" * 6, 1: 2**40, 2: 1, 3: b"\xa0"},
            {0: b"\x01" * 6, 1: True, 2: 1, 3: b"\xa1\x20\x40"},
            {0: b"\x01" * 8, 1: 7},
            {0: b"\x01" * 8, 1: "0"},
            {0: b"\x01" * 8, 1: 2**31, 2: 2**31, 3: b"x" * 900},
            {0: b"\x01" * 8, 1: 0, 2: -5, 3: []},
            {0: 1, 1: 1, 2: b"", 3: 1},
            {0: 1, 1: 9, 2: b"\x02" * 8, 3: "x"},
            {0: 1, 1: 1, 2: b"\x02" * 8, 3: 1, 4: [[[[[[[[]]]]]]]]},
            {-1: "x"},
            {-1: -1, -2: [1, 2, 3, 4]},
            {-1: 2**30 + 1},
            {-1: 0, -2: [b"\x01" * 6, 2**40, b"\x01" * 8, 1]},
            {-1: 0, -3: {300: "x"}, -6: [1], 0: {1: 2}},
            {n: n for n in range(250)},
            dict.fromkeys(range(30), "x" * 30),
        )
    ),
)


class Garbage:
    """A stream of payloads for one board's topics; the same seed gives the same stream."""

    def __init__(self, seed: int, keys: BoardKeys) -> None:
        self._dice = random.Random(seed)
        self._keys = keys

    def letter(self, letters: str) -> str:
        """One of these letters."""
        return self._dice.choice(letters)

    def payload(self, letter: str, valid: bytes, epoch: bytes) -> bytes:
        """What to publish on this letter; `valid` is a real message of some kind, `epoch` that of the session."""
        kinds: list[Callable[[], bytes]] = [
            lambda: b"",
            lambda: self._dice.randbytes(HUGE_BYTES),
            lambda: self._dice.randbytes(self._dice.randrange(1, 1024)),
            lambda: valid[: self._dice.randrange(len(valid) + 1)],
            lambda: self._flipped(valid),
            lambda: valid + self._dice.randbytes(9),
            lambda: self._sealed(letter, self._dice.choice(NONSENSE), epoch),
            lambda: self._sealed(letter, self._dice.choice(NONSENSE), epoch),
            lambda: self._sealed(letter, self._dice.choice(NONSENSE) + self._dice.randbytes(3), epoch),
        ]
        return self._dice.choice(kinds)()

    def _flipped(self, valid: bytes) -> bytes:
        flipped = bytearray(valid)
        if flipped:
            flipped[self._dice.randrange(len(flipped))] ^= 1 << self._dice.randrange(8)
        return bytes(flipped)

    def _sealed(self, letter: str, body: bytes, epoch: bytes) -> bytes:
        down = letter in "dcfi"
        key, size = (self._keys.down, seal.DOWN_TAG) if down else (self._keys.up, seal.UP_TAG)
        context = epoch if letter in EPOCH_SEALED else b""
        return body + seal.tag(key, topic(self._keys.board_id, letter), context, body, size)
