"""MQTT 3.1.1 as a board speaks it: packets out as bytes, packets in from whatever pieces the socket gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
SUBACK: Final = 0x90
PING: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
# Clean session, will at QoS 1 and retained, user and password (section 3.1.2).
CONNECT_FLAGS: Final = 0x02 | 0x04 | 0x08 | 0x20 | 0xC0
MAX_PACKET: Final = 64 * 1024  # what a broker may send; a board's own limit is 1,024 bytes of payload


class PacketError(ValueError):
    """The broker's bytes are no MQTT packet."""


def _packet(kind: int, rest: bytes) -> bytes:
    head, size = bytearray((kind,)), len(rest)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + rest


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def connect(client: str, password: str, keepalive_s: int, will_topic: bytes, will: bytes) -> bytes:
    """CONNECT; the user name is the client id."""
    name = client.encode()
    fixed = b"\x00\x04MQTT\x04" + bytes((CONNECT_FLAGS,)) + keepalive_s.to_bytes(2, "big")
    strings = (name, will_topic, will, name, password.encode())
    return _packet(0x10, fixed + b"".join(_string(s) for s in strings))


def subscribe(number: int, topics: list[bytes]) -> bytes:
    """SUBSCRIBE at QoS 1."""
    return _packet(0x82, number.to_bytes(2, "big") + b"".join(_string(t) + b"\x01" for t in topics))


def publish(number: int, topic: bytes, payload: bytes, retain: bool) -> bytes:
    """PUBLISH at QoS 1."""
    return _packet(0x32 | retain, _string(topic) + number.to_bytes(2, "big") + payload)


def puback(number: bytes) -> bytes:
    """PUBACK of a received number."""
    return b"\x40\x02" + number


def packets(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take every whole packet (first byte, rest) off the buffer; raises PacketError."""
    while True:
        size, at, shift = 0, 1, 0
        while True:
            if len(buffer) <= at:
                return
            digit = buffer[at]
            size |= (digit & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if digit < 0x80:
                break
            if shift > 21:
                raise PacketError("malformed length")
        if size > MAX_PACKET:
            raise PacketError(f"a packet of {size} bytes")
        if len(buffer) < at + size:
            return
        kind, rest = buffer[0], bytes(buffer[at : at + size])
        del buffer[: at + size]
        yield kind, rest


def message(kind: int, rest: bytes) -> tuple[bytes, bytes, bytes]:
    """Topic, packet number (empty at QoS 0) and payload of a PUBLISH; raises PacketError."""
    end = 2 + int.from_bytes(rest[:2], "big")
    at = end + 2 if kind & 6 else end
    if len(rest) < at:
        raise PacketError("a PUBLISH that ends in its head")
    return rest[2:end], rest[end:at], rest[at:]
