"""Keys: one root key a site, from which every board's key follows, so that the cluster holds no Secret per board.

Source: PROTOCOL.md section 4. Keys are derived when a board is first met and kept with it; deriving costs three HMACs.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from boardlet_wire import seal
from boardlet_wire.names import EPOCH_SEALED
from boardlet_wire.topic import topic

FIRST_KEY_NUMBER = 1
MAX_KEY_NUMBER = 2**31 - 1


def mac(key: bytes, *parts: bytes | memoryview) -> bytes:
    """HMAC-SHA256, the same as seal.hmac, which spells it out for boards: the host has it in C, 20 times as fast."""
    return hmac.digest(key, b"".join(parts), "sha256")


@dataclass(frozen=True, slots=True)
class BoardKeys:
    """Both directions' keys of one board under one key number, never shown in a repr, and its topics' beginning."""

    board_id: str
    number: int
    down: bytes = field(repr=False)
    up: bytes = field(repr=False)
    prefix: str

    def topic(self, letter: str) -> str:
        """The board's topic of this letter."""
        return self.prefix + letter

    def open(self, letter: str, payload: bytes, epoch: bytes) -> memoryview | None:
        """The body of a payload from the board if its seal is right, else None."""
        return self._verify(self.up, letter, epoch if letter in EPOCH_SEALED else b"", payload, seal.UP_TAG)

    def open_own(self, letter: str, payload: bytes) -> memoryview | None:
        """The body of a payload that a bridge of this site sealed (the mailbox, read back), else None."""
        return self._verify(self.down, letter, b"", payload, seal.DOWN_TAG)

    def close(self, letter: str, body: bytes, epoch: bytes = b"") -> bytes:
        """The body with its seal towards the board."""
        return body + self._tag(self.down, letter, epoch if letter in EPOCH_SEALED else b"", body, seal.DOWN_TAG)

    def _tag(self, key: bytes, letter: str, context: bytes, body: bytes | memoryview, size: int) -> bytes:
        return mac(key, self.topic(letter).encode(), b"\x00", context, body)[:size]

    def _verify(self, key: bytes, letter: str, context: bytes, payload: bytes, size: int) -> memoryview | None:
        if len(payload) <= size:
            return None
        body = memoryview(payload)[:-size]
        right = hmac.compare_digest(self._tag(key, letter, context, body, size), payload[-size:])
        return body if right else None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The site's root key (32 bytes) and this process's salt (16 random bytes), which makes its nonces its own."""

    root: bytes = field(repr=False)
    salt: bytes = field(repr=False)

    def board(self, board_id: str, number: int = FIRST_KEY_NUMBER) -> BoardKeys:
        key = self._board_key(board_id, number)
        return BoardKeys(board_id, number, mac(key, seal.DOWN), mac(key, seal.UP), topic(board_id, ""))

    def broker_password(self, board_id: str, number: int = FIRST_KEY_NUMBER) -> str:
        """The password that the board shows the broker: 32 hex digits (PROTOCOL.md section 4)."""
        return mac(self._board_key(board_id, number), seal.PASSWORD).hex()[:32]

    def nonce(self, board_id: str, count: int) -> bytes:
        """8 bytes that nobody without the salt can foretell, different for every count."""
        return mac(self.salt, board_id.encode(), b"\x00", count.to_bytes(8, "big"))[:8]

    def _board_key(self, board_id: str, number: int) -> bytes:
        return mac(self.root, b"boardlet/1\x00", board_id.encode(), b"\x00", number.to_bytes(4, "big"))
