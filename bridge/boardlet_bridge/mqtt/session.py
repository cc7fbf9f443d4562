"""The bridge's one MQTT connection: paho on asyncio, without a thread; the only module that imports paho.

A connection counts as up when every retained message has been handed on. To know that, the bridge subscribes the live
topics first, then the retained ones bucket by bucket (a foreign broker's default queue holds 1,000 messages), and then
publishes to a topic of its own, `b/~/<client id>/d`: what comes back on it came after all that was retained before.

Nothing is kept for a connection that is away: at every `on_up` the core derives anew what has to be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import paho.mqtt.client as paho
import structlog
from boardlet_wire.names import DESIRED, SESSION
from boardlet_wire.topic import bucket
from paho.mqtt.enums import CallbackAPIVersion

LIVE: Final = "rwatl"
RETAINED: Final = SESSION + DESIRED
BUCKETS: Final = tuple(f"{n:02x}" for n in range(256))
# One SUBSCRIBE in flight brings one bucket (about 40 boards of 10,000): far below any broker's default queue.
BUCKETS_A_SUBSCRIBE: Final = 4
CONNECT_S: Final = 15.0
BARRIER_S: Final = 60.0  # 10,000 retained messages took 4 s on a busy machine
KEEPALIVE_S: Final = 30
MISC_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
MAX_WINDOW: Final = 500  # unacknowledged publishes; paho scans them all at each PUBACK
DROPPED: Final = "$SYS/broker/publish/messages/dropped"

T = TypeVar("T")
_TOPIC: Final = re.compile(r"b/([0-9a-f]{2})/([a-z0-9]{8,16})/([a-z])")

log = structlog.get_logger("mqtt")


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is and who the bridge is there."""

    host: str
    port: int
    user: str | None = None
    password_file: Path | None = None
    """Read anew at every connection, so that a rotated Secret is taken."""
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class MqttHandler(Protocol):
    """What the session calls, always on the loop."""

    def on_up(self) -> None: ...
    def on_down(self, reason: str) -> None: ...
    def on_message(self, board_id: str, letter: str, topic: str, payload: bytes, retained: bool) -> None: ...
    def on_warning(self, reason: str, message: str) -> None: ...


class _Ended(Exception):
    """The connection ended, and why."""


class MqttSession:
    """Keeps one connection to the broker for as long as `run` runs."""

    def __init__(self, settings: MqttSettings, handler: MqttHandler, strange: Callable[[str], None]) -> None:
        self._settings = settings
        self._handler = handler
        self._strange = strange  # counts topics that are not of a board
        self._client: paho.Client | None = None
        self._client_id = f"boardlet-bridge-{secrets.token_hex(4)}"
        self._barrier_topic = f"b/~/{self._client_id}/d"
        self._ended: asyncio.Future[str] | None = None
        self._waiting: dict[int, asyncio.Future[list[Any]]] = {}
        self._barrier: asyncio.Future[None] | None = None
        self._inflight: set[int] = set()
        self._queue: dict[str, tuple[bytes, bool]] = {}
        self._up = False
        self._dropped: int | None = None

    @property
    def up(self) -> bool:
        """Whether the broker is connected and every retained message has been handed on."""
        return self._up

    async def run(self) -> None:
        """Connect, and connect again with back-off and full jitter, until cancelled."""
        pause = FIRST_PAUSE_S
        reason = ""
        while True:
            try:
                await self._connection()
            except _Ended as ended:
                if self._up:
                    pause = FIRST_PAUSE_S
                if self._up or str(ended) != reason:
                    reason = str(ended)
                    self._handler.on_down(reason)
            finally:
                self._close()
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 1; never blocks. What waits for the same topic is replaced; nothing is kept while not up."""
        if not self._up:
            return
        self._queue.pop(topic, None)
        self._queue[topic] = (payload, retain)
        self._pump()

    def _pump(self) -> None:
        client = self._client
        while client is not None and self._queue and len(self._inflight) < MAX_WINDOW:
            topic = next(iter(self._queue))
            payload, retain = self._queue.pop(topic)
            sent = client.publish(topic, payload, qos=1, retain=retain)
            if sent.rc == paho.MQTT_ERR_SUCCESS:
                self._inflight.add(sent.mid)

    async def _connection(self) -> None:
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        connected: asyncio.Future[str] = loop.create_future()
        try:
            self._client = client = self._make_client(loop, connected)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _Ended(f"cannot read the broker's credentials: {error}") from error
        try:
            # paho's connect blocks until TCP (and TLS) stand, so it happens in a thread.
            await loop.run_in_executor(None, self._dial, client)
        except (OSError, ssl.SSLError) as error:
            raise _Ended(f"{self._settings.host}:{self._settings.port}: {error}") from error
        self._attach(loop, client)
        misc = loop.create_task(self._misc(client))
        try:
            refusal = await self._first(connected, CONNECT_S, "the broker did not answer the CONNECT")
            if refusal:
                raise _Ended(f"the broker refuses the bridge: {refusal}")
            await self._subscribe(client)
            self._up = True
            self._handler.on_up()
            raise _Ended(await self._ended)
        finally:
            misc.cancel()

    def _make_client(self, loop: asyncio.AbstractEventLoop, connected: asyncio.Future[str]) -> paho.Client:
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, clean_session=True, protocol=paho.MQTTv311
        )
        client.max_inflight_messages_set(0)  # the window is ours
        if settings.user:
            secret = settings.password_file.read_text().strip() if settings.password_file else None
            client.username_pw_set(settings.user, secret)
        if settings.tls:
            context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
            if settings.cert_file:
                context.load_cert_chain(settings.cert_file, settings.key_file)
            client.tls_set_context(context)

        def on_connect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
            if not connected.done():
                connected.set_result(str(code) if code.is_failure else "")

        def on_subscribe(_c: object, _u: object, mid: int, codes: list[Any], _p: object) -> None:
            waiting = self._waiting.pop(mid, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(codes)

        def on_publish(_c: object, _u: object, mid: int, _code: object, _p: object) -> None:
            self._inflight.discard(mid)
            if self._queue:
                self._pump()

        client.on_connect = on_connect
        client.on_subscribe = on_subscribe
        client.on_publish = on_publish
        client.on_message = self._on_message
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._end(f"the connection ended: {code}")
        return client

    def _dial(self, client: paho.Client) -> None:
        client.connect_timeout = CONNECT_S
        client.connect(self._settings.host, self._settings.port, keepalive=KEEPALIVE_S)

    def _attach(self, loop: asyncio.AbstractEventLoop, client: paho.Client) -> None:
        sock = client.socket()
        if not isinstance(sock, socket.socket):
            raise _Ended("the connection ended at once")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = sock.fileno()

        def readable() -> None:
            client.loop_read()
            # TLS may hold whole messages that no select sees.
            while isinstance(sock, ssl.SSLSocket) and client.socket() is not None and sock.pending():
                client.loop_read()

        def on_close(_c: object, _u: object, closed: Any) -> None:
            loop.remove_reader(closed)
            with contextlib.suppress(ValueError):
                loop.remove_writer(closed)

        client.on_socket_close = on_close

        def on_register_write(_c: object, _u: object, writable: Any) -> None:
            loop.add_writer(writable, client.loop_write)

        def on_unregister_write(_c: object, _u: object, writable: Any) -> None:
            loop.remove_writer(writable)

        client.on_socket_register_write = on_register_write
        client.on_socket_unregister_write = on_unregister_write
        loop.add_reader(descriptor, readable)
        if client.want_write():
            loop.add_writer(descriptor, client.loop_write)

    async def _misc(self, client: paho.Client) -> None:
        # Keep-alive alone; no message waits for this.
        while client.loop_misc() == paho.MQTT_ERR_SUCCESS:  # noqa: ASYNC110 - time itself is what it waits for
            await asyncio.sleep(MISC_S)

    async def _subscribe(self, client: paho.Client) -> None:
        await self._subscribe_to(client, [f"b/+/+/{letter}" for letter in LIVE])
        await self._subscribe_to(client, [DROPPED], needed=False)
        for at in range(0, len(BUCKETS), BUCKETS_A_SUBSCRIBE):
            some = BUCKETS[at : at + BUCKETS_A_SUBSCRIBE]
            await self._subscribe_to(client, [f"b/{b}/+/{letter}" for b in some for letter in RETAINED])
        await self._subscribe_to(client, [self._barrier_topic])
        self._barrier = asyncio.get_running_loop().create_future()
        client.publish(self._barrier_topic, b"?", qos=1)
        await self._first(
            self._barrier,
            BARRIER_S,
            f"what the bridge publishes on {self._barrier_topic} does not come back: let it read and write b/+/+/d",
        )

    async def _subscribe_to(self, client: paho.Client, topics: list[str], needed: bool = True) -> None:
        code, mid = client.subscribe([(topic, 1) for topic in topics])
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            raise _Ended(f"cannot subscribe: {paho.error_string(code)}")
        self._waiting[mid] = asyncio.get_running_loop().create_future()
        codes = await self._first(self._waiting[mid], CONNECT_S, "the broker did not answer a SUBSCRIBE")
        denied = [topic for topic, answer in zip(topics, codes, strict=False) if answer.is_failure]
        if denied and needed:
            raise _Ended(f"the broker refuses the subscription to {denied[0]}: mend its access rules for the bridge")

    async def _first(self, future: asyncio.Future[T], within_s: float, otherwise: str) -> T:
        assert self._ended is not None
        either: set[asyncio.Future[Any]] = {future, self._ended}
        await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise _Ended(self._ended.result() if self._ended.done() else otherwise)

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        topic, payload = message.topic, bytes(message.payload)
        parts = _TOPIC.fullmatch(topic)
        if parts and parts[1] == bucket(parts[2]):
            self._handler.on_message(parts[2], parts[3], topic, payload, bool(message.retain))
        elif topic == self._barrier_topic:
            if self._barrier is not None and not self._barrier.done():
                self._barrier.set_result(None)
        elif topic == DROPPED:
            self._watch_drops(payload)
        else:
            self._strange(topic)

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

    def _end(self, reason: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    def _close(self) -> None:
        self._up = False
        self._inflight.clear()
        self._queue.clear()
        self._waiting.clear()
        client, self._client = self._client, None
        if client is not None:
            client.on_disconnect = None
            client.disconnect()
            with contextlib.suppress(OSError, ValueError):
                client.loop_write()
            if (sock := client.socket()) is not None:
                asyncio.get_running_loop().remove_reader(sock)
                asyncio.get_running_loop().remove_writer(sock)
                sock.close()
