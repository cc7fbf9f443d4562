"""One board's connection: MQTT on an asyncio transport, answers, heartbeats, and reconnects with back-off."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import deque
from collections.abc import Iterable
from typing import Final, cast

from boardlet_wire.names import SessionState

from . import packet
from .board import Board, Said

IN_FLIGHT: Final = 4  # PROTOCOL.md section 1
ANSWER_S: Final = 20.0
FULL_S: Final = 1.0  # at most one full report in this time
LONGEST_PAUSE_S: Final = 60.0


class Counts:
    """What all boards of a process have done."""

    def __init__(self) -> None:
        self.connects = self.births = self.reports = self.desired = self.commands = self.closed = 0
        self.change_bytes = self.desired_bytes = 0
        """The longest MQTT packet so far that reported one changed property, and that brought a desired."""


class Link(asyncio.Protocol):
    """Keeps `board` connected to the broker at `host` and `port` for as long as it is on."""

    def __init__(self, board: Board, port: int, counts: Counts, host: str = "127.0.0.1") -> None:
        self.board, self.host, self.port, self.counts = board, host, port, counts
        self.longest_pause_s = LONGEST_PAUSE_S
        self.why = "it did not answer"
        """Why the last attempt to connect failed."""
        self.on = False
        self.up = False
        self.failures = 0
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._inflight: dict[int, float] = {}
        self._waiting: deque[Said] = deque()
        self._loop = asyncio.get_running_loop()
        self._began = self._heard = self._sent = self._full_at = self._reported_at = 0.0
        self._nonce: bytes | None = None
        self._pinged = False
        self._corked: list[bytes] | None = None

    async def connect(self) -> None:
        """Power on, or try again."""
        self.on = True
        self.board.begin()
        try:
            await self._loop.create_connection(lambda: self, self.host, self.port)
        except OSError as error:
            self.why = str(error)
            self._again()

    def _again(self) -> None:
        self.failures += 1
        pause = random.uniform(0, min(self.longest_pause_s, 2.0 ** min(self.failures, 6)))
        self._loop.call_later(pause, self._retry)

    def _retry(self) -> None:
        if self.on and self._transport is None:
            self._dialling = self._loop.create_task(self.connect())

    def cut(self) -> None:
        """Power off, without a word: the broker sends the will."""
        self.on = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio calls these
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer.clear()
        self._inflight.clear()
        self._waiting.clear()
        self._nonce, self._pinged = None, False
        self._began = self._heard = self._sent = self._reported_at = self._loop.time()
        self._full_at = self._began - FULL_S
        keepalive = max(5, min(self.board.heartbeat_s, 60))
        will = self.board.session(SessionState.GONE)
        self._write(packet.connect(self.board.id, self.board.password, keepalive, self.board.topics["s"], will))
        if not self.on:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.up, self._transport = False, None
        self.counts.closed += 1
        if self.on:
            if self.board.switches:
                self._retry()
            else:
                self._again()

    def data_received(self, data: bytes) -> None:
        self._heard, self._pinged = self._loop.time(), False
        self._buffer += data
        for kind, rest in packet.packets(self._buffer):
            op = kind & 0xF0
            if op == packet.PUBACK:
                self._inflight.pop(rest[0] << 8 | rest[1], None)
            elif op == packet.PUBLISH:
                self._message(*packet.message(kind, rest), len(rest) + (2 if len(rest) < 128 else 3))
            elif op == packet.CONNACK:
                self._connack(rest[1])
            elif op == packet.SUBACK:
                self._inflight.pop(rest[0] << 8 | rest[1], None)
        self._pump()

    # What the board does
    def _connack(self, code: int) -> None:
        if code:
            self.why = f"it refuses this login (CONNACK {code})"
            self._close()
            return
        self.up, self.failures = True, 0
        self.counts.connects += 1
        self._write(packet.subscribe(self._next(), [self.board.topics[letter] for letter in "dcf"]))
        self._birth()

    def _birth(self) -> None:
        self.counts.births += 1
        self._publish("s", self.board.session(SessionState.HERE), retain=True)

    def _message(self, topic: bytes, number: bytes, payload: bytes, size: int) -> None:
        if number:
            self._write(packet.puback(number))
        letter = chr(topic[-1])
        if not payload:
            return
        if letter == "c":
            self.counts.commands += 1
            asked = self.board.asked(payload)
            if asked:
                self._nonce = asked[0]
                if asked[1]:
                    self._birth()
                self._answer()
            return
        if letter == "d":
            self.counts.desired += 1
            self.counts.desired_bytes = max(self.counts.desired_bytes, size)
        for said in self.board.received(letter, payload):
            self.say(said)
        if self.board.switches:
            self._publish("s", self.board.session(SessionState.GONE), retain=True)
            self._close()

    def _answer(self) -> None:
        if self._nonce is None or not self.up:
            return
        wait = self._full_at + FULL_S - self._loop.time()
        if wait > 0:
            self._loop.call_later(wait, self._answer)
            return
        nonce, self._nonce, self._full_at = self._nonce, None, self._loop.time()
        self.say(self.board.full(nonce, int(self._loop.time() - self._began)))

    def say(self, said: Said) -> None:
        """Send a report or a want, in order, when there are fewer than four unacknowledged ones."""
        self._waiting.append(said)
        self._pump()

    def sense(self, index: int) -> None:
        """A sensor's value changes: told at once, or with what else changed as soon as the link is free."""
        self.board.sense(index)
        self._pump()

    def burst(self, indexes: Iterable[int]) -> None:
        """Sensors change one after the other: a report each while it may be under way, in one write to the socket."""
        corked: list[bytes] = []
        self._corked = corked
        for index in indexes:
            self.sense(index)
        self._corked = None
        if corked:
            self._write(b"".join(corked))

    def _pump(self) -> None:
        while self.up and len(self._inflight) < IN_FLIGHT:
            single = not self._waiting and len(self.board.unsaid) == 1
            if self._waiting:
                letter, payload = self._waiting.popleft()
            elif self.board.unsaid and self._nonce is None and self.board.applied:
                letter, payload = self.board.changes()
            else:
                return
            if letter == "r":
                self.counts.reports += 1
                self._reported_at = self._loop.time()
            size = self._publish(letter, payload, retain=False)
            if single:
                self.counts.change_bytes = max(self.counts.change_bytes, size)

    def sweep(self, now: float) -> None:
        """Once a second: pings, heartbeats, and connections that are dead."""
        if not self.up:
            return
        keepalive = max(5, min(self.board.heartbeat_s, 60))
        oldest = next(iter(self._inflight.values()), now)
        if now - self._heard > 1.5 * keepalive or now - oldest > ANSWER_S:
            self._close()
        elif now - self._reported_at >= self.board.heartbeat_s:
            self.say(self.board.heartbeat(int(now - self._began)))
        elif now - self._sent >= keepalive / 3 and not self._pinged:
            self._pinged = True
            self._write(packet.PING)

    def _next(self) -> int:
        self._number = self._number % 65535 + 1
        self._inflight[self._number] = self._loop.time()
        return self._number

    def _publish(self, letter: str, payload: bytes, *, retain: bool) -> int:
        data = packet.publish(self._next(), self.board.topics[letter], payload, retain)
        self._write(data)
        return len(data)

    def _write(self, data: bytes) -> None:
        if self._corked is not None:
            self._corked.append(data)
        elif self._transport is not None:
            self._sent = self._loop.time()
            self._transport.write(data)

    def _close(self) -> None:
        self.up = False
        if self._transport is not None:
            self._write(packet.DISCONNECT)
            self._transport.close()
