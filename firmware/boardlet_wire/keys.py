"""Keys of boards, for hosts: a board is given its own at flashing, and never sees the root (PROTOCOL.md section 4)."""

from hashlib import sha256

from boardlet_wire.seal import hmac


def board_key(root: bytes, board_id: str, number: int) -> bytes:
    """A board's key, 32 bytes, from the site's root key."""
    return hmac(_short(root), b"boardlet/1\x00", board_id.encode(), b"\x00", number.to_bytes(4, "big"))


def claim_key(root: bytes, number: int) -> bytes:
    """The key of a site's claim, 32 bytes, which opens nothing but enrolment (PROTOCOL.md section 12)."""
    return hmac(_short(root), b"boardlet/1/claim\x00", number.to_bytes(4, "big"))


def _short(root: bytes) -> bytes:
    return sha256(root).digest() if len(root) > 64 else root  # RFC 2104; boards' own keys are never that long
