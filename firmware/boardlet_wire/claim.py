# Enrolment's secrets (PROTOCOL.md section 12), alike on both sides. No part of the agent: a board has this file in
# enrol/, only while it has no identity.
#
# X25519 (RFC 7748) on Python's long integers, because few ports have a curve; HMAC as the stream cipher, because some
# ports have no AES. Not in constant time: each secret is used for one enrolment, and nobody times it over a radio.
from hashlib import sha256

from boardlet_wire.seal import hmac

BASE = b"\x09" + bytes(31)
TAG = 16
_P = (1 << 255) - 19


def x25519(secret, point):
    # 32 bytes from 32 and 32; raises ValueError for a point that would make the result known to everybody.
    k = int.from_bytes(secret, "little") & ((1 << 254) - 8) | 1 << 254
    x1 = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3 = 1, 0, x1, 1
    swap = 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if bit != swap:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a = x2 + z2
        b = x2 - z2
        da = (x3 - z3) * a % _P
        cb = (x3 + z3) * b % _P
        a = a * a % _P
        b = b * b % _P
        e = a - b
        x3 = da + cb
        x3 = x3 * x3 % _P
        z3 = da - cb
        z3 = z3 * z3 % _P * x1 % _P
        x2 = a * b % _P
        z2 = e * (a + 121665 * e) % _P
    if swap:
        x2, z2 = x3, z3
    x = x2 * pow(z2, _P - 2, _P) % _P
    if not x:
        raise ValueError("point")
    return x.to_bytes(32, "little")


def fingerprint(public):
    # What a person compares, and the board's place among the topics of enrolment: 16 hex digits.
    return sha256(public).digest()[:8].hex()


def topic(public, letter):
    return "e/%s/%s" % (fingerprint(public), letter)


def agree(claim, shared, board, bridge, nonce):
    # The key of one answer; it takes the claim and one of the two secrets.
    return hmac(claim, b"enrol\x00", shared, board, bridge, nonce)


def _stream(key, data):
    key = hmac(key, b"e")
    out = bytearray()
    for at in range(0, len(data), 32):
        block = hmac(key, bytes((at >> 5,)))
        out.extend(bytes(a ^ b for a, b in zip(data[at : at + 32], block)))
    return bytes(out)


def wrap(key, data):
    out = _stream(key, data)
    return out + hmac(hmac(key, b"t"), out)[:TAG]


def unwrap(key, wrapped):
    # What was wrapped, or None where it was not, or not whole; constant in time over the tag's bytes.
    if len(wrapped) <= TAG:
        return None
    body = bytes(wrapped[:-TAG])
    want = hmac(hmac(key, b"t"), body)
    diff = 0
    for i in range(TAG):
        diff |= want[i] ^ wrapped[len(body) + i]
    return None if diff else _stream(key, body)
