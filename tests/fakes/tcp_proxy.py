"""A TCP proxy before a real broker that cuts connections inside of a packet, delays packets, or stalls without a word.

It knows where MQTT packets begin and end, so that a cut can be aimed at each part of one. It reorders nothing: TCP does
not either.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from fakes.loop_thread import LoopThread
from fakes.packet import read
from provision.process import free_port

_PUBLISH: Final = 0x30
# Where in a packet of n bytes a cut can fall, as the number of bytes that still pass.
OFFSETS: Final[dict[str, Callable[[int], int]]] = {
    "nothing of it": lambda n: 0,
    "its first byte": lambda n: 1,
    "inside of its head": lambda n: 3,
    "inside of its topic": lambda n: min(n - 1, 10),
    "its middle": lambda n: n // 2,
    "all but a byte": lambda n: n - 1,
}
# What a broker, or whoever sits before it, may make of a packet.
LIES: Final[dict[str, Callable[[bytes, random.Random], bytes]]] = {
    "dropped": lambda p, dice: b"",
    "twice": lambda p, dice: p + p,
    "flipped bit": lambda p, dice: _with(p, dice.randrange(len(p)), lambda b: b ^ 1 << dice.randrange(8)),
    "other type": lambda p, dice: _with(p, 0, lambda b: dice.randrange(256)),
    "too short": lambda p, dice: p[: dice.randrange(1, len(p))],
    "too long": lambda p, dice: p + dice.randbytes(dice.randrange(1, 40)),
    "length that lies": lambda p, dice: p[:1] + b"\xff\xff\xff\x7f" + p[2:],
    "endless length": lambda p, dice: p[:1] + b"\xff" * 8 + p[2:],
    "noise": lambda p, dice: dice.randbytes(dice.randrange(1, 200)),
    "unknown id": lambda p, dice: p + b"\x40\x02" + dice.randbytes(2),
    "empty SUBACK": lambda p, dice: p + b"\x90\x02" + dice.randbytes(2),
    "refusing SUBACK": lambda p, dice: p[:4] + b"\x80" * len(p[4:]) if p[0] == 0x90 else b"\x90\x03\x00\x01\x80" + p,
    "another CONNACK": lambda p, dice: p + b"\x20\x02\x00" + bytes([dice.randrange(8)]),
    "topic not of text": lambda p, dice: b"\x30\x06\x00\x02\xff\xfe\x00\x00" + p,
    "topic longer than the packet": lambda p, dice: b"\x30\x05\xff\xffabc" + p,
    "empty topic": lambda p, dice: b"\x32\x05\x00\x00\x00\x07x" + p,
}


def _with(packet: bytes, at: int, change: Callable[[int], int]) -> bytes:
    return packet[:at] + bytes([change(packet[at])]) + packet[at + 1 :]


class TcpProxy(LoopThread):
    """Listens on loopback while the with-block lasts, and passes on to the port that `to` names."""

    def __init__(self, seed: int) -> None:
        super().__init__("tcp proxy")
        self.port = free_port()
        self.cut_chance = 0.0
        """Of one packet, that its connection is cut inside of it."""
        self.delay_s = 0.0
        """Up to so long a packet waits."""
        self.garble_chance = 0.0
        """Of one packet, that something else arrives in its place."""
        self.cuts: Counter[str] = Counter()
        self.lies: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._target = 0
        self._pairs: set[_Pair] = set()

    def to(self, port: int) -> None:
        """Where connections lead from now on."""
        self._target = port

    def stall(self) -> int:
        """Every connection that is open passes nothing any more, and stays open; how many there were."""
        return self._call(lambda: sum(pair.stall() for pair in self._pairs))

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for pair in list(self._pairs):
            pair.abort()
        while self._pairs:
            await asyncio.sleep(0.01)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, back)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pass(reader, back, pair), self._pass(there, writer, pair))
        finally:
            pair.abort()
            self._pairs.discard(pair)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pair: _Pair) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                packet = await read(source)
                if pair.stalled:
                    continue  # taken from the sender as by a router that has forgotten the connection
                if self.delay_s:
                    await asyncio.sleep(self._dice.uniform(0, self.delay_s))
                if packet[0] & 0xF0 == _PUBLISH and self._dice.random() < self.cut_chance:
                    where = self._dice.choice(list(OFFSETS))
                    self.cuts[where] += 1
                    sink.write(packet[: OFFSETS[where](len(packet))])
                    await sink.drain()
                    break
                sink.write(self._garbled(packet) if self._dice.random() < self.garble_chance else packet)
                await sink.drain()
        if not pair.stalled:
            pair.close()

    def _garbled(self, packet: bytes) -> bytes:
        kind = self._dice.choice(list(LIES))
        self.lies[kind] += 1
        return LIES[kind](packet, self._dice)


class _Pair:
    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.stalled = False

    def stall(self) -> bool:
        self.stalled = True
        return True

    def close(self) -> None:
        # What was written still goes out before the end of the stream.
        for writer in self._writers:
            writer.close()

    def abort(self) -> None:
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.transport.abort()
