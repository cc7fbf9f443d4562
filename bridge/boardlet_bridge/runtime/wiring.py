"""Joins the layers: watch and broker feed the engine, the engine's effects leave through broker and status writer.

Order of a start: list the objects, then connect to the broker, then ask the boards. A bridge that listened before it
knew its objects would take every board for an unknown one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import structlog

from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.state import Limits
from boardlet_bridge.kube import connection
from boardlet_bridge.kube.board_watch import BoardWatch
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import KubeClient
from boardlet_bridge.kube.finalizer import Finalizers
from boardlet_bridge.kube.handlers import Change, Watch
from boardlet_bridge.kube.notice import NoticeWriter
from boardlet_bridge.kube.resync import Resync
from boardlet_bridge.kube.status_writer import Key, StatusWriter
from boardlet_bridge.mqtt.session import MqttSession, MqttSettings
from boardlet_bridge.runtime.credential import Credentials, CredentialSettings
from boardlet_bridge.runtime.engine import Engine
from boardlet_bridge.runtime.health import Health
from boardlet_bridge.runtime.metrics import Metrics
from boardlet_bridge.runtime.settings import Settings

DRAIN_S: Final = 5.0  # a stopping pod has 30 s in all
ROOT_KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
MAX_NAMED: Final = 1000  # ids of boards without an object come from outside: beyond these they are counted only

log = structlog.get_logger("bridge")


class ConfigurationError(Exception):
    """The bridge cannot start as it is configured; the message says what to mend."""


class Bridge:
    """One bridge process; the engine's outlet."""

    def __init__(self, settings: Settings) -> None:
        ring = KeyRing(read_root_key(settings.root_key_file), secrets.token_bytes(SALT_BYTES))
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(ring, _limits(settings), self)
        self.session = MqttSession(_mqtt(settings), self.engine, self._strange)
        credentials = _credentials(settings)
        self.credentials = Credentials(credentials, ring.broker_password) if credentials.on else None
        self.waiting = "has not been asked yet"
        self._named: set[str] = set()
        self._writer: StatusWriter
        self._finalizers: Finalizers
        self._notices: NoticeWriter
        self._resync: Resync | None = None
        self._watches: Sequence[BoardWatch | Watch] = ()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; raises ConfigurationError."""
        settings = self.settings
        self._loop = asyncio.get_running_loop()
        try:
            described = connection.find(settings.kubeconfig, settings.context)
        except connection.ConnectionInvalid as error:
            raise ConfigurationError(str(error)) from error
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(KubeClient(described))
            except connection.ConnectionInvalid as error:
                raise ConfigurationError(str(error)) from error
            budget = Budget(settings.status_writes_per_s, settings.status_burst)
            self._finalizers = Finalizers(client, lambda obj: self.engine.on_board("MODIFIED", obj), budget)
            stack.push_async_callback(self._finalizers.stop)
            self._writer = StatusWriter(
                client,
                self.engine.snapshot,
                self.engine.written,
                interval_s=settings.status_interval_s,
                budget=budget,
                observe=lambda outcome: self.metrics.writes.labels(outcome).inc(),
                doubt=self.doubt,
            )
            self._notices = NoticeWriter(
                client,
                per_s=settings.events_per_s,
                burst=settings.events_burst,
                board_burst=settings.board_events_burst,
                board_interval_s=settings.board_event_interval_s,
                observe=lambda outcome: self.metrics.events.labels(outcome).inc(),
            )
            engine = self.engine
            self.metrics.watch(
                lambda: len(engine.entries),
                lambda: engine.connected,
                lambda: self._writer.pending,
                lambda: len(engine.leftovers.mailboxes),
                engine.received,
                engine.dropped,
                engine.conditions,
                self._parts,
                lambda: self.session.up,
                lambda: self.session.unread_bytes,
                lambda: self.session.waiting,
            )
            await self._serve_health(stack)
            await self._serve(stack, client, described, stop)

    async def _serve_health(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        if settings.http_port:
            health = Health(settings.http_host, settings.http_port, self.metrics, self._parts)
            try:
                await health.start()
            except OSError as error:
                raise ConfigurationError(f"http_port {settings.http_port}: {error}") from error
            stack.push_async_callback(health.stop)

    async def _serve(
        self, stack: AsyncExitStack, client: KubeClient, described: connection.Connection, stop: asyncio.Event
    ) -> None:
        engine, settings = self.engine, self.settings
        resync = self._resync = Resync(client, self, settings.namespaces, engine.board_versions, engine.model_versions)
        stopped = asyncio.create_task(stop.wait())
        listing = asyncio.create_task(resync.first(self._wait_for))
        await asyncio.wait({stopped, listing}, return_when=asyncio.FIRST_COMPLETED)
        if not listing.done():
            listing.cancel()
            return
        listing.result()
        self.waiting = ""
        engine.on_listed()
        log.info("listed the objects", boards=len(engine.entries), models=len(engine.models.objects))
        boards = BoardWatch(client, resync, settings.namespaces, self)
        watch = Watch(described, settings.namespaces, self)
        self._watches = [boards, watch]
        watch.start()
        stack.push_async_callback(watch.stop)
        works = {
            "boards": boards.run(),
            "writer": self._writer.run(),
            "notices": self._notices.run(),
            "resync": resync.run(settings.resync_s),
            "guard": resync.guard(),
            "mqtt": self.session.run(),
        }
        if self.credentials is not None:
            works["credentials"] = self.credentials.run()
        tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
        try:
            ends: set[asyncio.Future[Any]] = {stopped, *tasks}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # none of them ends by itself: a bug of ours, to be seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._writer.drain(DRAIN_S)

    # The cluster's sink
    def on_board(self, change: Change, obj: Mapping[str, Any]) -> None:
        self.engine.on_board(change, obj)

    def on_model(self, change: Change, obj: Mapping[str, Any]) -> None:
        self.engine.on_model(change, obj)

    def on_rewound(self) -> None:
        self.engine.on_rewound()
        for watch in self._watches:
            watch.restart()

    # The engine's outlet
    def doubt(self) -> None:
        if self._resync is not None:
            self._resync.soon()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.session.publish(topic, payload, retain=retain)

    def mark(self, key: Key, urgent: bool) -> None:
        self._writer.mark(key, urgent)

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None:
        self._finalizers.want(obj, present)

    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None:
        self._notices.tell(obj, notice)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self._loop.call_at(when, callback)

    def now(self) -> float:
        return self._loop.time()

    def refused(self, cause: str) -> None:
        self.metrics.refused.labels(cause).inc()

    def unknown_board(self, board_id: str) -> None:
        self.metrics.unknown.inc()
        if board_id not in self._named and len(self._named) < MAX_NAMED:
            self._named.add(board_id)
            log.warning("a board without a Board object connects, and is left alone", board=board_id)

    def warned(self, reason: str) -> None:
        self.metrics.warnings.labels(reason).inc()

    def admit(self, board_id: str, number: int) -> None:
        if self.credentials is not None:
            self.credentials.admit(board_id, number)

    def _strange(self, topic: str) -> None:
        self.refused("strange_topic")

    def _wait_for(self, reason: str) -> None:
        if reason != self.waiting:
            log.warning("waiting for the cluster", why=reason)
        self.waiting = reason

    def _parts(self) -> dict[str, str]:
        away = self._resync.away if self._resync else ""
        return {
            "cluster": self.waiting or away,
            "broker": "" if self.session.up else self.engine.broker_reason or "not connected yet",
            "statuses": self._writer.why,
            "finalizers": self._finalizers.why,
            "credentials": self.credentials.why if self.credentials else "",
        }


def read_root_key(path: Path) -> bytes:
    """The site's root key from a file of 64 hex digits; raises ConfigurationError."""
    try:
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise ConfigurationError(f"cannot read the root key: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"root key {path}: must be 64 hexadecimal digits") from error
    if len(key) != ROOT_KEY_BYTES:
        raise ConfigurationError(f"root key {path}: must be {2 * ROOT_KEY_BYTES} hex digits, has {2 * len(key)}")
    return key


def _limits(settings: Settings) -> Limits:
    return Limits(
        grace_factor=settings.grace_factor,
        proof_heartbeats=settings.proof_heartbeats,
        pending_grace_s=settings.pending_grace_s,
        mint_burst=settings.mint_burst,
        mint_interval_s=settings.mint_interval_s,
        flapping_ends=settings.flapping_ends,
        flapping_s=settings.flapping_s,
    )


def _credentials(settings: Settings) -> CredentialSettings:
    return CredentialSettings(
        users_file=settings.broker_users_file,
        acl_file=settings.broker_acl_file,
        pid_file=settings.broker_pid_file,
        bridge_user=settings.broker_user,
        password_file=settings.broker_password_file,
    )


def _mqtt(settings: Settings) -> MqttSettings:
    return MqttSettings(
        host=settings.broker_host,
        port=settings.broker_port,
        user=settings.broker_user,
        password_file=settings.broker_password_file,
        tls=settings.broker_tls,
        ca_file=settings.broker_ca_file,
        cert_file=settings.broker_cert_file,
        key_file=settings.broker_key_file,
    )
