"""A stolen broker: a real one behind a proxy that hears every message and may drop, hold back, replay and make up any.

What it drops it acknowledges, in both directions, so that its victims believe it delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fakes.loop_thread import CALL_S, LoopThread
from fakes.packet import packet, read
from provision.process import free_port

BRIDGE: Final = "boardlet-bridge"
_HEARD: Final = 20_000
_CONNECT, _PUBLISH, _PUBACK = 0x10, 0x30, 0x40


@dataclass(frozen=True, slots=True)
class Said:
    """One message that passed, or would have."""

    client: str
    """Client id of the one that said it or was to hear it; BRIDGE for every bridge."""
    up: bool
    """Towards the broker."""
    topic: str
    payload: bytes

    @property
    def letter(self) -> str:
        return self.topic[-1]


class LyingBroker(LoopThread):
    """Listens on loopback while the with-block lasts, before the broker at the port that `to` names."""

    def __init__(self) -> None:
        super().__init__("lying broker")
        self.port = free_port()
        self.heard: deque[Said] = deque(maxlen=_HEARD)
        self.passes: Callable[[Said], bool] = lambda said: True
        """Whether a message may pass; asked for each, on a thread of the proxy's."""
        self._target = 0
        self._clients: dict[str, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def to(self, port: int) -> None:
        """Where the real broker is."""
        self._target = port

    def tell(self, client: str, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Have a client hear a message that nobody sent; raises KeyError while the client is not connected."""

        async def told() -> None:
            name = topic.encode()
            body = struct.pack(">H", len(name)) + name + payload
            self._clients[client].write(packet(_PUBLISH | retain, body))
            await self._clients[client].drain()

        asyncio.run_coroutine_threadsafe(told(), self._loop).result(CALL_S)

    def last(self, client: str, topic: str, *, up: bool) -> bytes:
        """The latest payload that a client said or heard on a topic."""
        return self.all(client, topic, up=up)[-1]

    def all(self, client: str, topic: str, *, up: bool) -> list[bytes]:
        """All payloads so far that a client said or heard on a topic."""
        return [s.payload for s in list(self.heard) if (s.client, s.up, s.topic) == (client, up, topic)]

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back = None
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            first = await read(reader)
            client = _client(first)
            self._clients[client] = writer
            back.write(first)
            ways = [self._pass(reader, back, writer, client, True), self._pass(there, writer, back, client, False)]
            both = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # who was cut off connects again
        finally:
            self._tasks.discard(task)
            for end in (writer, back):
                if end is not None:
                    end.close()

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        sender: asyncio.StreamWriter,
        client: str,
        up: bool,
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                whole = await read(source)
                if whole[0] & 0xF0 == _PUBLISH:
                    said, number = _published(client, up, whole)
                    self.heard.append(said)
                    if not self.passes(said):
                        if number:
                            sender.write(packet(_PUBACK, number))
                            await sender.drain()
                        continue
                sink.write(whole)
                await sink.drain()


def _published(client: str, up: bool, packet: bytes) -> tuple[Said, bytes]:
    at = 2
    while packet[at - 1] & 0x80:
        at += 1
    size = struct.unpack(">H", packet[at : at + 2])[0]
    topic = packet[at + 2 : at + 2 + size].decode()
    at += 2 + size
    number = packet[at : at + 2] if packet[0] & 6 else b""
    return Said(client, up, topic, packet[at + len(number) :]), number


def _client(connect: bytes) -> str:
    at = connect.index(b"MQTT") + 8
    name = connect[at + 2 : at + 2 + struct.unpack(">H", connect[at : at + 2])[0]].decode()
    return BRIDGE if name.startswith(BRIDGE) else name
