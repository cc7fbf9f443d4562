from typing import Final

BASE: Final[bytes]
TAG: Final = 16

def x25519(secret: bytes, point: bytes) -> bytes:
    """RFC 7748's function, 32 bytes of 32 and 32; raises ValueError where the result would be zero."""

def fingerprint(public: bytes) -> str:
    """16 hex digits of SHA-256 of a board's public part."""

def topic(public: bytes, letter: str) -> str:
    """The topic of a board's request (`q`) or of the answer (`a`)."""

def agree(claim: bytes, shared: bytes, board: bytes, bridge: bytes, nonce: bytes) -> bytes:
    """The key of one answer, 32 bytes."""

def wrap(key: bytes, data: bytes) -> bytes:
    """At most 8,192 bytes, encrypted, and a tag of 16; a key is used once."""

def unwrap(key: bytes, wrapped: bytes) -> bytes | None:
    """What was wrapped under this key, else None."""
