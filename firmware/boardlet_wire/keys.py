"""Keys of boards, for hosts: a board is given its own at flashing, and never sees the root (PROTOCOL.md section 4)."""

from hashlib import sha256

from boardlet_wire.seal import hmac


def board_key(root: bytes, board_id: str, number: int) -> bytes:
    """A board's key, 32 bytes, from the site's root key."""
    if len(root) > 64:
        root = sha256(root).digest()  # RFC 2104; boards' own keys are never that long
    return hmac(root, b"boardlet/1\x00", board_id.encode(), b"\x00", number.to_bytes(4, "big"))
