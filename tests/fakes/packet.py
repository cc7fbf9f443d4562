"""MQTT packets on a stream, as far as those have to know them who stand between two ends."""

from __future__ import annotations

import asyncio


def packet(kind: int, body: bytes) -> bytes:
    """Of this first byte; with the length that goes before the body."""
    head, size = bytearray([kind]), len(body)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + body


async def read(source: asyncio.StreamReader) -> bytes:
    """The next one, whole; raises IncompleteReadError at the end of the stream."""
    head = await source.readexactly(2)
    size, shift = head[1] & 0x7F, 7
    while head[-1] & 0x80:
        head += await source.readexactly(1)
        size |= (head[-1] & 0x7F) << shift
        shift += 7
    return head + await source.readexactly(size)
