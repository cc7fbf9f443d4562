"""Keys: one root key a site, from which every board's key follows, so that the cluster holds no Secret per board.

Source: PROTOCOL.md section 4. Keys are derived when a board is first met and kept with it; deriving costs two HMACs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from boardlet_wire import seal
from boardlet_wire.names import EPOCH_SEALED
from boardlet_wire.topic import topic

FIRST_KEY_NUMBER = 1


@dataclass(frozen=True, slots=True)
class BoardKeys:
    """Both directions' keys of one board under one key number; never shown in a repr."""

    board_id: str
    number: int
    down: bytes = field(repr=False)
    up: bytes = field(repr=False)

    def open(self, letter: str, payload: bytes, epoch: bytes) -> memoryview | None:
        """The body of a payload from the board if its seal is right, else None."""
        context = epoch if letter in EPOCH_SEALED else b""
        return seal.verify(self.up, topic(self.board_id, letter), context, payload, seal.UP_TAG)

    def open_own(self, letter: str, payload: bytes) -> memoryview | None:
        """The body of a payload that a bridge of this site sealed (the mailbox, read back), else None."""
        return seal.verify(self.down, topic(self.board_id, letter), b"", payload, seal.DOWN_TAG)

    def close(self, letter: str, body: bytes, epoch: bytes = b"") -> bytes:
        """The body with its seal towards the board."""
        context = epoch if letter in EPOCH_SEALED else b""
        return body + seal.tag(self.down, topic(self.board_id, letter), context, body, seal.DOWN_TAG)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The site's root key (32 bytes) and this process's salt (16 random bytes), which makes its nonces its own."""

    root: bytes = field(repr=False)
    salt: bytes = field(repr=False)

    def board(self, board_id: str, number: int = FIRST_KEY_NUMBER) -> BoardKeys:
        key = seal.board_key(self.root, board_id, number)
        return BoardKeys(board_id, number, seal.half_key(key, seal.DOWN), seal.half_key(key, seal.UP))

    def broker_password(self, board_id: str, number: int = FIRST_KEY_NUMBER) -> str:
        """The password that the board shows the broker: 32 hex digits (PROTOCOL.md section 4)."""
        return seal.half_key(seal.board_key(self.root, board_id, number), seal.PASSWORD).hex()[:32]

    def nonce(self, board_id: str, count: int) -> bytes:
        """8 bytes that nobody without the salt can foretell, different for every count."""
        return seal.hmac(self.salt, board_id.encode(), b"\x00", count.to_bytes(8, "big"))[:8]
