from typing import Final, TypeAlias

DOWN: Final[bytes]
UP: Final[bytes]
PASSWORD: Final[bytes]
DOWN_TAG: Final = 16
UP_TAG: Final = 8

Buffer: TypeAlias = bytes | bytearray | memoryview

def hmac(key: bytes, *parts: Buffer) -> bytes:
    """HMAC-SHA256 of the parts in order, 32 bytes (RFC 2104); the key is at most 64 bytes."""

def half_key(key: bytes, direction: bytes) -> bytes:
    """The key of one direction, 32 bytes."""

def tag(half: bytes, topic: str, context: Buffer, body: Buffer, size: int) -> bytes:
    """The seal of a body on a topic, `size` bytes (16 towards a board, 8 from it)."""

def verify(half: bytes, topic: str, context: Buffer, payload: Buffer, size: int) -> memoryview | None:
    """The body of a payload whose tag is right, else None."""

def digest(data: Buffer) -> bytes:
    """The first 8 bytes of SHA-256 (PROTOCOL.md section 2)."""
