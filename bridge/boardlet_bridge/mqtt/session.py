"""The bridge's presence at the broker: connected again and again, subscribed, and up when all is read.

A connection counts as up when every retained message has been handed on. To know that, the bridge subscribes buckets
a few at a time (a foreign broker's default queue holds 1,000 messages), and then publishes to a topic of its own,
`b/~/<client id>/d`: what comes back on it came after all that was retained before. Buckets that are gained while it is
connected are read in the same way, those that are lost are unsubscribed.

Nothing is kept for a connection that is away: at every `on_up` the core derives anew what has to be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import secrets
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from boardlet_wire.names import DESIRED, SESSION
from boardlet_wire.topic import bucket

from boardlet_bridge.mqtt.transport import ConnectionEnded, MqttSettings, Transport

__all__ = ["MqttHandler", "MqttSession", "MqttSettings"]

LIVE: Final = "rwatl"
RETAINED: Final = SESSION + DESIRED
BUCKETS: Final = tuple(f"{n:02x}" for n in range(256))
# A SUBSCRIBE of four buckets brings 320 messages of 10,000 boards: far below any broker's default queue.
BUCKETS_A_SUBSCRIBE: Final = 4
STRANGER_S: Final = 2.0  # so long after its first words another replica may be learned of
BARRIER_S: Final = 60.0  # 10,000 retained messages took 4 s on a busy machine
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
MAX_WINDOW: Final = 500  # unacknowledged publishes; paho scans them all at each PUBACK
DROPPED: Final = "$SYS/broker/publish/messages/dropped"

# What a bridge publishes at the end of its retained messages, to read it back: below no bucket, so it is of no board.
BARRIER_PREFIX: Final = "b/~/"
BARRIERS: Final = f"{BARRIER_PREFIX}+/d"

_TOPIC: Final = re.compile(r"b/([0-9a-f]{2})/([a-z0-9]{8,16})/([a-z])")

REQUESTS: Final = "e/+/q"  # boards that ask to be enrolled (PROTOCOL.md section 12)
_REQUEST: Final = re.compile(r"e/([0-9a-f]{16})/q")


class MqttHandler(Protocol):
    """What the session calls, always on the loop."""

    def on_up(self, buckets: Collection[str]) -> None: ...
    def on_down(self, reason: str) -> None: ...
    def on_message(self, board_id: str, letter: str, topic: str, payload: bytes, retained: bool) -> None: ...
    def on_warning(self, reason: str, message: str) -> None: ...


class MqttSession:
    """Keeps one connection to the broker for as long as `run` runs; `strange` is told topics that are of no board.

    `requests` is told fingerprint and payload of each request to be enrolled; None: they are not listened to.
    `may_send` is asked of every message at the moment when it is sent: True, False to drop it, None to keep it waiting.
    """

    def __init__(
        self,
        settings: MqttSettings,
        handler: MqttHandler,
        strange: Callable[[str], None],
        requests: Callable[[str, bytes], None] | None = None,
        may_send: Callable[[str, bytes, bool], bool | None] = lambda topic, payload, retain: True,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._strange = strange
        self._requests = requests
        self._may_send = may_send
        self.client_id = f"boardlet-bridge-{secrets.token_hex(4)}"
        self.replicas: frozenset[str] = frozenset()
        """Client ids of other bridges that are no strangers."""
        self._barrier_topic = f"{BARRIER_PREFIX}{self.client_id}/d"
        self._held: set[str] = set(BUCKETS)
        self._reading: set[str] = set()  # subscribed, and retained messages may be on their way
        self._read: set[str] = set()
        self._left: set[str] = set()  # to be unsubscribed
        self._moved = asyncio.Event()
        self._barrier: asyncio.Future[None] | None = None
        self._transport: Transport | None = None
        self._inflight: set[int] = set()
        self._queue: dict[str, tuple[bytes, bool]] = {}
        self._up = False
        self._told = False
        self._dropped: int | None = None

    @property
    def up(self) -> bool:
        """Whether the broker is connected and every retained message has been handed on."""
        return self._up and self._held <= self._read

    @property
    def connected(self) -> bool:
        """Whether the broker is connected, though something of what it retains may have to be read."""
        return self._up

    @property
    def unread_bytes(self) -> int:
        """What the broker has sent and the bridge has not taken: the one queue there is, and it pushes back by TCP."""
        return self._transport.unread_bytes if self._transport is not None else 0

    @property
    def waiting(self) -> int:
        """Messages to boards that the broker has not acknowledged, or not got yet."""
        return len(self._queue) + len(self._inflight)

    async def run(self) -> None:
        """Connect, and connect again with back-off and full jitter, until cancelled."""
        pause, said = FIRST_PAUSE_S, ""
        while True:
            try:
                await self._connection()
            except ConnectionEnded as ended:
                reason, was_up = str(ended), self._up
                if was_up:
                    pause = FIRST_PAUSE_S
                # What a connection that never came up has handed on must be forgotten too.
                if was_up or self._told or reason != said:
                    said = reason
                    self._handler.on_down(reason)
            finally:
                self._forget()
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def hold(self, buckets: Collection[str]) -> None:
        """Have the messages of these buckets too; `on_up` tells when all that was retained is read."""
        self._held.update(buckets)
        self._moved.set()

    def release(self, buckets: Collection[str]) -> None:
        """Have no more messages of these buckets, and send none of those that wait."""
        for some in (self._held, self._reading, self._read):
            some.difference_update(buckets)
        self._left.update(buckets)
        for topic in [topic for topic in self._queue if topic[:2] == "b/" and topic[2:4] in buckets]:
            del self._queue[topic]
        self._moved.set()

    def resume(self) -> None:
        """Ask again what may be sent."""
        self._pump()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 1; never blocks. What waits for the same topic is replaced; nothing is kept while not up."""
        if not self._up:
            return
        self._queue.pop(topic, None)
        self._queue[topic] = (payload, retain)
        self._pump()

    def _pump(self) -> None:
        while self._transport is not None and self._queue and len(self._inflight) < MAX_WINDOW:
            topic = next(iter(self._queue))
            may = self._may_send(topic, *self._queue[topic])
            if may is None:
                return
            message = self._queue.pop(topic)
            if may and (number := self._transport.publish(topic, *message)) is not None:
                self._inflight.add(number)

    def _acknowledged(self, number: int) -> None:
        self._inflight.discard(number)
        if self._queue:
            self._pump()

    async def _connection(self) -> None:
        transport = self._transport = Transport(self._settings, self.client_id, self._received, self._acknowledged)
        await transport.open()
        if self._requests is not None and await transport.subscribe([REQUESTS]):
            self._handler.on_warning(
                "RequestsRefused",
                f"the broker refuses the subscription to {REQUESTS}: no board can be enrolled until its access rules "
                "allow it to the bridge (docs/enrolment.md)",
            )
        await transport.subscribe([DROPPED])  # a broker without it, or that keeps it to itself, is fine
        while True:
            self._moved.clear()
            left, self._left = self._left - self._held, set()
            if left and self._up:
                await transport.unsubscribe([f"b/{b}/+/{letter}" for b in sorted(left) for letter in LIVE + RETAINED])
            if not self._up or not self._held <= self._read:
                await self._read_retained(transport)
            if not self._moved.is_set():
                moved = asyncio.create_task(self._moved.wait())
                try:
                    ends: set[asyncio.Future[Any]] = {moved, transport.ended}
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    moved.cancel()
            if transport.ended.done():
                raise ConnectionEnded(transport.ended.result())

    async def _read_retained(self, transport: Transport) -> None:
        gained = sorted(self._held - self._read)
        self._reading = set(gained)
        for at in range(0, len(gained), BUCKETS_A_SUBSCRIBE):
            some = gained[at : at + BUCKETS_A_SUBSCRIBE]
            # The live ones too: who listens to all of them hears the boards of every replica.
            await self._need(transport, [f"b/{b}/+/{letter}" for b in some for letter in LIVE + RETAINED])
        if not self._up:
            await self._need(transport, [BARRIERS])  # one's own, and with it those of bridges that come later
        await self._barred(transport)
        read, self._reading = self._reading, set()  # without what was released meanwhile
        self._read |= read
        self._up = True
        self._handler.on_up(read)

    async def _barred(self, transport: Transport) -> None:
        # All that was sent to us before this comes back has arrived.
        self._barrier = asyncio.get_running_loop().create_future()
        transport.publish(self._barrier_topic, b"?")
        otherwise = f"what the bridge publishes on {self._barrier_topic} does not come back: let it do so on b/+/+/d"
        await transport.first(self._barrier, BARRIER_S, otherwise)

    async def _need(self, transport: Transport, topics: list[str]) -> None:
        denied = await transport.subscribe(topics)
        if denied:
            said = f"the broker refuses the subscription to {denied[0]}: mend its access rules for the bridge"
            raise ConnectionEnded(said)

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        parts = _TOPIC.fullmatch(topic)
        if parts and parts[1] == bucket(parts[2]):
            self._told = True
            self._handler.on_message(parts[2], parts[3], topic, payload, retained)
        elif topic == self._barrier_topic:
            if self._barrier is not None and not self._barrier.done():
                self._barrier.set_result(None)
        elif topic.startswith(BARRIER_PREFIX):
            self._another(topic.split("/")[2])
        elif topic == DROPPED:
            self._watch_drops(payload)
        elif self._requests is not None and (asks := _REQUEST.fullmatch(topic)):
            if not retained:  # nobody retains one but to have it read at every start
                self._requests(asks[1], payload)
        else:
            self._strange(topic)

    def _another(self, other: str) -> None:
        if not self.replicas:
            self._second(other)
        elif other not in self.replicas:
            asyncio.get_running_loop().call_later(STRANGER_S, self._second, other)

    def _second(self, other: str) -> None:
        if other not in self.replicas:
            self._handler.on_warning(
                "SecondBridge",
                f"another bridge, {other}, has connected to this broker: if it is not replacing this one, stop one of "
                "them; nothing goes wrong meanwhile, and all is asked and written twice",
            )

    def _watch_drops(self, payload: bytes) -> None:
        with contextlib.suppress(ValueError):
            dropped = int(payload)
            if self._dropped is not None and dropped > self._dropped:
                self._handler.on_warning(
                    "BrokerDropsMessages",
                    f"the broker dropped {dropped - self._dropped} messages: set max_queued_messages 200000 and "
                    "max_inflight_messages 0 in mosquitto.conf (docs/operations.md)",
                )
            self._dropped = dropped

    def _forget(self) -> None:
        self._up = self._told = False
        for some in (self._reading, self._read, self._left):
            some.clear()
        self._inflight.clear()
        self._queue.clear()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
