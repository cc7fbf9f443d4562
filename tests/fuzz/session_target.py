"""The bridge's MQTT session before a broker whose bytes are mutated, over real sockets.

One connection carries many mutated packets, so that most of the time is not spent in connecting; each connection must
end by itself once the broker has closed it, with ConnectionEnded and nothing else, and the loop must stay idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import time
import tracemalloc
from collections.abc import Collection
from typing import Any, Final

from board_target import packet
from boardlet_bridge.mqtt.session import MqttSession
from boardlet_bridge.mqtt.transport import ConnectionEnded, MqttSettings
from boardlet_wire.topic import topic
from fuzzing import GROWTH_BYTES, Broken, Outcome
from mutation import Pool, kept

PACKETS: Final = 40  # mutated ones a connection; after the first that cannot be understood the rest goes unread
CONNECTION_S: Final = 5.0
CONNACK: Final = b"\x20\x02\x00\x00"


def publish(name: bytes, payload: bytes, qos: int = 1, retain: int = 0) -> bytes:
    number = b"\x00\x07" if qos else b""
    return packet(0x30 | qos << 1 | retain, struct.pack(">H", len(name)) + name + number + payload)


def seeds() -> list[bytes]:
    """What a broker says to a bridge."""
    name = topic("k7m2q9xa", "r").encode()
    made = [publish(name, b"x" * 20, qos, retain) for qos in (0, 1, 2) for retain in (0, 1)]
    made += [publish(topic("k7m2q9xa", "d").encode(), b"", 1, 1)]
    made += [publish(b"$SYS/broker/publish/messages/dropped", b"9")]
    made += [publish(b"b/~/boardlet-bridge-0/d", b"?"), publish(b"\xff\xfe", b"x"), publish(b"", b"x")]
    made += [CONNACK, b"\x90\x07\x00\x01\x01\x01\x01\x01\x01", b"\x40\x02\x00\x01", b"\xd0\x00", b"\xc0\x00"]
    made += [b"\x50\x02\x00\x01", b"\x62\x02\x00\x07", b"\x70\x02\x00\x01", b"\xb0\x02\x00\x01", b"\xe0\x00"]
    return made


class Handler:
    """Counts what the session hands on."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_up(self, buckets: Collection[str]) -> None:
        self.said.append("up")

    def on_down(self, reason: str) -> None:
        self.said.append("down")

    def on_message(self, board_id: str, letter: str, topic: str, payload: bytes, retained: bool) -> None:
        self.said.append(letter)

    def on_warning(self, reason: str, message: str) -> None:
        self.said.append(reason)


class Server:
    """Answers a CONNECT, or not; acknowledges some subscriptions; then sends what it was given, and closes."""

    def __init__(self) -> None:
        self.give: list[bytes] = []
        self.subscriptions = 0

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._packet(reader)
            if self.subscriptions >= 0:
                writer.write(CONNACK)
            for _ in range(self.subscriptions):
                body = await self._packet(reader)
                writer.write(packet(0x90, body[:2] + b"\x01" * 8))
            writer.write(b"".join(self.give))
            await writer.drain()
            writer.write_eof()
            while await reader.read(4096):
                pass
        writer.close()

    async def _packet(self, reader: asyncio.StreamReader) -> bytes:
        await reader.readexactly(1)
        size = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return await reader.readexactly(size)


def session(count: int, seed: int) -> Outcome:
    """`count` mutated packets to the bridge's session; raises Broken."""
    return asyncio.run(_session(count, seed))


async def _session(count: int, seed: int) -> Outcome:
    pool = Pool([*seeds(), *kept("session")], seed)
    server, errors = Server(), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    listening = await asyncio.start_server(server.accepted, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    began, sizes = time.monotonic(), []
    connections = max(1, count // PACKETS)
    for number in range(connections):
        if number == connections // 2:
            tracemalloc.start()
        if number in (connections * 3 // 4, connections - 1):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        server.give = [pool.next() if pool.rng.random() < 0.7 else pool.rng.choice(seeds()) for _ in range(PACKETS)]
        server.subscriptions = pool.rng.choice((-1, 0, 0, 1, 2, 66))
        said = await _connection(port, server, errors)
        for data in server.give[:2] if number < connections // 2 else ():  # what is learnt is held, and would count
            pool.learn(data, (said, data[:1]))
    tracemalloc.stop()
    listening.close()
    grown = sizes[-1] - sizes[0] if len(sizes) > 1 else 0
    if grown > GROWTH_BYTES:
        raise Broken(f"session: the heap grew by {grown} bytes over {connections // 4} connections")
    return Outcome("session", connections * PACKETS, time.monotonic() - began, len(pool.seen), grown, pool.found)


async def _connection(port: int, server: Server, errors: list[Any]) -> tuple[str, ...]:
    handler = Handler()
    one = MqttSession(MqttSettings("127.0.0.1", port), handler, lambda _: None)
    try:
        async with asyncio.timeout(CONNECTION_S):
            await one._connection()
    except ConnectionEnded as ended:
        ending = str(ended)[:40]
    except TimeoutError:
        raise Broken(f"session: hung on {b''.join(server.give).hex()}  # {errors[:1]!r:.400}") from None
    finally:
        one._forget()
    if errors:
        raise Broken(f"session: {b''.join(server.give).hex()}  # {errors[0].get('exception')!r}")
    return ending.replace(str(port), ""), *sorted(set(handler.said))
