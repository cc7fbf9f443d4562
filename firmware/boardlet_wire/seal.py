# Seals: PROTOCOL.md section 4. MicroPython has sha256 but no hmac, so RFC 2104 is spelled out here.
from hashlib import sha256

DOWN = b"d"
UP = b"u"
PASSWORD = b"m"
DOWN_TAG = 16
UP_TAG = 8
_ONES = int.from_bytes(b"\1" * 64, "big")


def hmac(key, *parts):
    # A key of at most 64 bytes: RFC 2104's step of hashing a longer one is not needed for those of boards. Its pads are
    # made of long integers: byte by byte they would take longer than both hashes.
    key = int.from_bytes(key + bytes(64 - len(key)), "big")
    inner = sha256((key ^ _ONES * 0x36).to_bytes(64, "big"))
    for part in parts:
        inner.update(part)
    outer = sha256((key ^ _ONES * 0x5C).to_bytes(64, "big"))
    outer.update(inner.digest())
    return outer.digest()


def half_key(key, direction):
    return hmac(key, direction)


def tag(half, topic, context, body, size):
    return hmac(half, topic.encode(), b"\x00", context, body)[:size]


def verify(half, topic, context, payload, size):
    # The body without its tag, or None where the tag is wrong; constant in time over the tag's bytes.
    n = len(payload) - size
    if n < 1:
        return None
    body = memoryview(payload)[:n]
    want = tag(half, topic, context, body, size)
    diff = 0
    for i in range(size):
        diff |= want[i] ^ payload[n + i]
    return None if diff else body


def digest(data):
    return sha256(data).digest()[:8]
