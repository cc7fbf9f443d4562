"""One MQTT connection: paho driven by asyncio, without a thread; the only module that imports paho.

paho asks for a reader and a writer of its socket, which the loop gives; a task of its own keeps the connection alive. A
transport lives as long as its connection: `ended` tells when and why that is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

CONNECT_S: Final = 15.0
KEEPALIVE_S: Final = 30
MISC_S: Final = 1.0
READ_AT_ONCE: Final = 50  # packets in one turn of the loop: what else is due must not wait for a flood to end
# What paho raises on a packet that is too short for what it names, or whose topic is not UTF-8.
BROKEN: Final = (ValueError, IndexError, struct.error)

OnMessage = Callable[[str, bytes, bool], None]  # topic, payload, retained
OnAcknowledged = Callable[[int], None]  # the number that `publish` gave


class ConnectionEnded(Exception):
    """The connection ended, or never came about; the message says why."""


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


class Transport:
    """A connection to the broker, not open yet; for one use."""

    def __init__(
        self, settings: MqttSettings, client_id: str, on_message: OnMessage, on_acknowledged: OnAcknowledged
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._on_acknowledged = on_acknowledged
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[str] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, when the connection is over."""
        self._subscribing: dict[int, asyncio.Future[list[Any]]] = {}
        self._misc_task: asyncio.Task[None] | None = None
        try:
            self._client = self._make_client(client_id)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConnectionEnded(f"cannot read the broker's credentials: {error}") from error

    async def open(self) -> None:
        """Connect and log in; raises ConnectionEnded."""
        try:
            # paho's connect blocks until TCP (and TLS) stand, so it happens in a thread.
            await self._loop.run_in_executor(None, self._dial)
        except (OSError, ssl.SSLError) as error:
            raise ConnectionEnded(
                f"{self._settings.host}:{self._settings.port}: {_said(error, self._settings.tls)}"
            ) from error
        self._attach()
        self._misc_task = self._loop.create_task(self._misc())
        refusal = await self.first(self._connected, CONNECT_S, "the broker did not answer the CONNECT")
        if refusal:
            raise ConnectionEnded(f"the broker refuses the bridge: {refusal}")

    async def subscribe(self, topics: list[str]) -> list[str]:
        """Subscribe at QoS 1 and return the topics that the broker denies; raises ConnectionEnded."""
        code, mid = self._client.subscribe([(topic, 1) for topic in topics])
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            raise ConnectionEnded(f"cannot subscribe: {paho.error_string(code)}")
        answer = self._subscribing[mid] = self._loop.create_future()
        codes = await self.first(answer, CONNECT_S, "the broker did not answer a SUBSCRIBE")
        return [topic for topic, code in zip(topics, codes, strict=False) if code.is_failure]

    async def unsubscribe(self, topics: list[str]) -> None:
        """Have no more messages on these; raises ConnectionEnded."""
        code, _ = self._client.unsubscribe(topics)
        if code != paho.MQTT_ERR_SUCCESS:
            raise ConnectionEnded(f"cannot unsubscribe: {paho.error_string(code)}")

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Send at QoS 1 and return the number that will be acknowledged, None where the connection is over."""
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        return sent.mid if sent.rc == paho.MQTT_ERR_SUCCESS else None

    async def first(self, future: asyncio.Future[Any], within_s: float, otherwise: str) -> Any:
        """What the future gives, unless the connection ends before or it takes too long: raises ConnectionEnded."""
        either: set[asyncio.Future[Any]] = {future, self.ended}
        await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise ConnectionEnded(self.ended.result() if self.ended.done() else otherwise)

    @property
    def unread_bytes(self) -> int:
        """Bytes that have arrived and wait in the socket."""
        sock, count = self._client.socket(), array("i", [0])
        if sock is not None and sock.fileno() >= 0:
            fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
        return count[0]

    def close(self) -> None:
        """Say good-bye if there is still somebody, and let go of the socket."""
        if self._misc_task is not None:
            self._misc_task.cancel()
        self._client.on_disconnect = None
        self._client.disconnect()
        with contextlib.suppress(OSError, ValueError):
            self._client.loop_write()
        if (sock := self._client.socket()) is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()

    def _make_client(self, client_id: str) -> paho.Client:
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True, protocol=paho.MQTTv311
        )
        client.max_inflight_messages_set(0)  # the window is the session's
        client.connect_timeout = CONNECT_S
        if settings.user:
            secret = settings.password_file.read_text().strip() if settings.password_file else None
            client.username_pw_set(settings.user, secret)
        if settings.tls:
            context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
            context.sslsocket_class = _Socket
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if settings.cert_file:
                context.load_cert_chain(settings.cert_file, settings.key_file)
            client.tls_set_context(context)
        client.on_connect = self._connack
        client.on_subscribe = self._suback
        client.on_publish = lambda _c, _u, mid, _code, _p: self._on_acknowledged(mid)
        client.on_message = lambda _c, _u, m: self._on_message(m.topic, bytes(m.payload), bool(m.retain))
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._end(f"the connection ended: {code}")
        return client

    def _dial(self) -> None:
        self._client.connect(self._settings.host, self._settings.port, keepalive=KEEPALIVE_S)

    def _attach(self) -> None:
        client, loop = self._client, self._loop
        sock = client.socket()
        if not isinstance(sock, socket.socket):
            raise ConnectionEnded("the connection ended at once")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        reading = False

        def more() -> bool:
            if client.socket() is None:
                return False
            # TLS may hold whole messages that neither select nor the socket shows.
            return bool(sock.pending() if isinstance(sock, ssl.SSLSocket) else self.unread_bytes)

        def readable() -> None:
            nonlocal reading
            reading = True
            try:
                client.loop_read()
                for _ in range(READ_AT_ONCE):
                    if not more():
                        break
                    client.loop_read()
            except BROKEN as error:
                # paho would read the same packet again each time the loop turns.
                loop.remove_reader(sock)
                self._end(f"the broker sent a packet that is not MQTT: {error}")
            finally:
                reading = False
            if client.socket() is not None and client.want_write():
                client.loop_write()  # the acknowledgements of all that was read
                if client.socket() is not None and client.want_write():
                    loop.add_writer(sock, client.loop_write)

        def on_close(_c: object, _u: object, closed: Any) -> None:
            loop.remove_reader(closed)
            with contextlib.suppress(ValueError):
                loop.remove_writer(closed)

        def on_register_write(_c: object, _u: object, writable: Any) -> None:
            if not reading:
                loop.add_writer(writable, client.loop_write)

        def on_unregister_write(_c: object, _u: object, writable: Any) -> None:
            loop.remove_writer(writable)

        client.on_socket_close = on_close
        client.on_socket_register_write = on_register_write
        client.on_socket_unregister_write = on_unregister_write
        loop.add_reader(sock, readable)
        if client.want_write():
            loop.add_writer(sock, client.loop_write)

    async def _misc(self) -> None:
        # Keep-alive alone; no message waits for this.
        while self._client.loop_misc() == paho.MQTT_ERR_SUCCESS:  # noqa: ASYNC110 - it waits for time itself
            await asyncio.sleep(MISC_S)

    def _connack(self, _c: object, _u: object, _f: object, code: Any, _p: object) -> None:
        if not self._connected.done():
            self._connected.set_result(str(code) if code.is_failure else "")

    def _suback(self, _c: object, _u: object, mid: int, codes: list[Any], _p: object) -> None:
        waiting = self._subscribing.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(codes)

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


# X.509 verify results of OpenSSL (x509_vfy.h) that a person can do something about.
_CERTIFICATE: Final = {
    9: "is not valid yet: is this machine's clock right?",
    10: "has expired: renew it; is this machine's clock right?",
    18: "is signed by itself: name it as broker_ca_file, if it is the broker's",
    19: "is of an authority that is not trusted here: name that as broker_ca_file",
    20: "is of an authority that is not trusted here: name that as broker_ca_file",
    62: "is for another name: have broker_host as the certificate says",
    64: "is for another address: have broker_host as the certificate says",
}


def _said(error: OSError, tls: bool) -> str:
    # The cause of a connection that did not come about, with what to do where OpenSSL's words leave that open.
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _CERTIFICATE:
        return f"the broker's certificate {_CERTIFICATE[error.verify_code]} ({error.verify_message})"
    if tls and (isinstance(error, ConnectionResetError) or getattr(error, "reason", "") == "WRONG_VERSION_NUMBER"):
        return f"the broker seems to speak no TLS on this port: mend broker_port, or leave broker_tls out ({error})"
    return str(error)


class _Socket(ssl.SSLSocket):
    # paho leaves a socket whose handshake failed to the garbage collector.
    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise
