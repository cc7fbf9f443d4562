"""Keys: one root key a site (two while it is replaced), from which every board's key follows: no Secret per board.

Source: PROTOCOL.md section 4. Keys are derived when a board is first met and kept with it; deriving costs three HMACs.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from boardlet_wire import seal
from boardlet_wire.names import EPOCH_SEALED
from boardlet_wire.topic import topic

from boardlet_bridge.core.root_key import FIRST_KEY_NUMBER, MAX_KEY_NUMBER, RootKey, RootKeys, serving

__all__ = ["FIRST_KEY_NUMBER", "MAX_KEY_NUMBER", "BoardKeys", "KeyRing", "mac"]


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
    first: int = FIRST_KEY_NUMBER
    """The lowest key number that follows from `root`."""
    older: RootKeys = ()
    """What `root` replaces: boards keep their keys of it until they get one of `root`."""

    @classmethod
    def of(cls, keys: RootKeys, salt: bytes) -> KeyRing:
        return cls(keys[0].key, salt, keys[0].first, keys[1:])

    @property
    def roots(self) -> RootKeys:
        """All root keys, the newest first."""
        return (RootKey(self.first, self.root), *self.older)

    @property
    def lowest(self) -> int:
        """The lowest key number that there is a root key for."""
        return self.older[-1].first if self.older else self.first

    def board(self, board_id: str, number: int = FIRST_KEY_NUMBER) -> BoardKeys:
        """The board's keys of this number; raises RootKeyInvalid for one below `lowest`."""
        key = self._board_key(board_id, number)
        return BoardKeys(board_id, number, mac(key, seal.DOWN), mac(key, seal.UP), topic(board_id, ""))

    def broker_password(self, board_id: str, number: int = FIRST_KEY_NUMBER) -> str:
        """The password that the board shows the broker: 32 hex digits (PROTOCOL.md section 4)."""
        return mac(self._board_key(board_id, number), seal.PASSWORD).hex()[:32]

    def nonce(self, board_id: str, count: int) -> bytes:
        """8 bytes that nobody without the salt can foretell, different for every count."""
        return mac(self.salt, board_id.encode(), b"\x00", count.to_bytes(8, "big"))[:8]

    def claim_key(self, number: int) -> bytes:
        """The key of the site's claim, which opens nothing but enrolment (PROTOCOL.md section 12)."""
        return mac(self.root, b"boardlet/1/claim\x00", number.to_bytes(4, "big"))

    def enrolled_id(self, public: bytes) -> str:
        """The id of a new Board for the board of this public part: always the same, foretold by nobody; 12 digits."""
        return mac(self.root, b"boardlet/1/enrolled\x00", public).hex()[:12]

    def board_key(self, board_id: str, number: int) -> bytes:
        """The key itself, to be given to its board."""
        return self._board_key(board_id, number)

    def _board_key(self, board_id: str, number: int) -> bytes:
        root = serving(self.roots, number).key
        return mac(root, b"boardlet/1\x00", board_id.encode(), b"\x00", number.to_bytes(4, "big"))
