"""Joins the layers: watch and broker feed the engine, the engine's effects leave through broker and status writer.

Order of a start: list the objects, then connect to the broker, then ask the boards. A bridge that listened before it
knew its objects would take every board for an unknown one.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from boardlet_bridge.core import root_key
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.state import Limits
from boardlet_bridge.core.store import Key, Store, StoreInvalid
from boardlet_bridge.mqtt.session import MqttSession, MqttSettings
from boardlet_bridge.runtime.credential import Credentials, CredentialSettings
from boardlet_bridge.runtime.dynamic_security import DynamicLogins
from boardlet_bridge.runtime.engine import Engine
from boardlet_bridge.runtime.health import Health
from boardlet_bridge.runtime.login import Logins
from boardlet_bridge.runtime.metrics import Metrics
from boardlet_bridge.runtime.replica import Replica
from boardlet_bridge.runtime.settings import Settings

if TYPE_CHECKING:
    from boardlet_bridge.runtime.enrollment import Enrollments

DRAIN_S: Final = 5.0  # a stopping pod has 30 s in all
SALT_BYTES: Final = 16
MAX_NAMED: Final = 1000  # ids of boards without an object come from outside: beyond these they are counted only

log = structlog.get_logger("bridge")


class ConfigurationError(Exception):
    """The bridge cannot start as it is configured; the message says what to mend."""


class Bridge:
    """One bridge process; the engine's outlet."""

    def __init__(self, settings: Settings) -> None:
        roots = read_root_keys(settings.root_key_file)
        ring = KeyRing.of(roots, secrets.token_bytes(SALT_BYTES))
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(ring, _limits(settings), self)
        self.store: Store = _store(settings, self.engine, self.metrics)
        self.replica = Replica(settings, roots, self.engine)
        self.enrollments = self._enrollments(ring)
        requests = self.enrollments.request if self.enrollments else None
        self.session = MqttSession(_mqtt(settings), self.engine, self._strange, requests, self.replica.may_send)
        self.logins = Logins(ring.broker_password, self.enrollments.keys.password if self.enrollments else "")
        self.credentials = self._credentials()
        self.waiting = "has not been asked yet"
        self._named: set[str] = set()

    def _credentials(self) -> Credentials | DynamicLogins | None:
        settings, files = self.settings, _credentials(self.settings)
        if settings.broker_logins != "files" and (files.on or files.pid_file):
            raise ConfigurationError(
                f"broker_logins {settings.broker_logins}: leave out broker_users_file, broker_acl_file, "
                "broker_psk_file and broker_pid_file, which are of no use with it"
            )
        if settings.broker_logins == "dynamic-security":
            return DynamicLogins(_mqtt(settings), self.logins, self.engine.on_warning, self.replica.keeps)
        return Credentials(files, self.logins, self.replica.keeps) if files.on else None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; raises ConfigurationError."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            try:
                await self.store.open(stack)
            except StoreInvalid as error:
                raise ConfigurationError(str(error)) from error
            self.replica.join(self.store, self.session, self.credentials)
            registry, census = self.engine.registry, self.engine.census
            self.metrics.watch(
                lambda: census.served,
                lambda: census.connected,
                lambda: self.store.pending,
                lambda: len(registry.leftovers.mailboxes),
                census.received,
                census.dropped,
                census.conditions,
                census.root_keys,
                self._parts,
                lambda: self.session.connected,
                lambda: self.session.unread_bytes,
                lambda: self.session.waiting,
                census.measured,
                self.settings.metrics_max_series,
            )
            census.pace.watch(self.metrics.registry, lambda: self.store.budget_used)
            await self._serve_health(stack)
            await self._serve(stack, stop)

    async def _serve_health(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        if settings.http_port:
            health = Health(settings.http_host, settings.http_port, self.metrics, self._parts)
            try:
                await health.start()
            except OSError as error:
                raise ConfigurationError(f"http_port {settings.http_port}: {error}") from error
            stack.push_async_callback(health.stop)

    async def _serve(self, stack: AsyncExitStack, stop: asyncio.Event) -> None:
        engine = self.engine
        stopped = asyncio.create_task(stop.wait())
        listing = asyncio.create_task(self.store.first(self._wait_for))
        await asyncio.wait({stopped, listing}, return_when=asyncio.FIRST_COMPLETED)
        if not listing.done():
            listing.cancel()
            return
        listing.result()
        self.waiting = ""
        engine.on_listed()
        gc.collect()
        gc.freeze()  # the boards stay: what looks for garbage need not look at them
        known = engine.registry
        log.info("listed the objects", boards=len(known.entries), models=len(known.models.objects))
        works: dict[str, Any] = {**self.store.serve(stack), "mqtt": self.replica.serve()}
        if self.credentials is not None:
            works["credentials"] = self.credentials.run()
        if self.enrollments is not None:
            works["enrollments"] = self.enrollments.run()
        tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
        try:
            with self.replica.taking_part() as lease:  # its lease is the last that goes
                try:
                    ends: set[asyncio.Future[Any]] = {stopped, *tasks, *lease}
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    for task in [*tasks, *lease]:
                        if task.done():
                            task.result()  # none of them ends by itself: a bug of ours, to be seen
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    engine.leave()
                    await self.store.drain(DRAIN_S, values=not self.replica.succeeded)
        finally:
            await self.replica.leave()

    # The engine's outlet
    def doubt(self) -> None:
        self.store.doubt()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.session.publish(topic, payload, retain=retain)

    def mark(self, key: Key, urgent: bool) -> None:
        self.store.mark(key, urgent)

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None:
        self.store.set_finalizer(obj, present)

    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None:
        self.store.tell(obj, notice)

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
            self.logins.admit(board_id, number)

    def sure(self) -> bool:
        return self.replica.fence.sure

    def _strange(self, topic: str) -> None:
        self.refused("strange_topic")

    def _wait_for(self, reason: str) -> None:
        if reason != self.waiting:
            log.warning("waiting for the objects", why=reason)
        self.waiting = reason

    def _parts(self) -> dict[str, str]:
        parts = dict(self.store.parts())
        if self.waiting:
            parts[next(iter(parts))] = self.waiting  # of a store's parts the first is the store itself
        return {
            **parts,
            "broker": "" if self.session.up else self.engine.broker_reason or "not connected, or not read yet",
            "lease": self.replica.why,
            "credentials": self.credentials.why if self.credentials else "",
            **({"enrollments": self.enrollments.why} if self.enrollments else {}),
        }

    def _enrollments(self, ring: KeyRing) -> Enrollments | None:
        settings, namespace = self.settings, self.settings.enrollment_namespace
        if namespace is None:
            return None
        from boardlet_bridge.kube.store import KubeStore
        from boardlet_bridge.runtime.enrollment import Enrollments, EnrollmentSettings

        store = self.store
        if not isinstance(store, KubeStore):
            raise ConfigurationError("enrollment_namespace needs a cluster: in a folder nobody could approve anything")
        if settings.namespaces and namespace not in settings.namespaces:
            raise ConfigurationError(f"enrollment_namespace {namespace} must be one of namespaces, which are served")
        chosen = EnrollmentSettings(
            namespace,
            settings.enrollment_claim_number,
            settings.enrollment_max_open,
            settings.enrollment_ask_s,
            settings.enrollment_policy_file,
        )

        claims = self.engine.registry.claims

        def rival(board_id: str, name: str) -> bool:
            return claims.claimed(board_id, (namespace, name))

        def observe(outcome: str) -> None:
            self.metrics.enrollments.labels(outcome).inc()

        spoken = claims.proven_key
        return Enrollments(chosen, ring, lambda: store.client, self.publish, spoken, observe, self.replica.keeps, rival)


def read_root_keys(path: Path) -> root_key.RootKeys:
    """The site's root keys from their file; raises ConfigurationError."""
    try:
        keys = root_key.parse(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read the root key: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"root key {path}: is not text") from error
    except root_key.RootKeyInvalid as error:
        raise ConfigurationError(f"root key {path}: {error}") from error
    if len(keys) > 1:
        firsts = [key.first for key in keys]
        log.info("boards move from the older root keys to the first of these", first_key_numbers=firsts)
    return keys


def _store(settings: Settings, engine: Engine, metrics: Metrics) -> Store:
    def wrote(outcome: str) -> None:
        metrics.writes.labels(outcome).inc()

    def noticed(outcome: str) -> None:
        metrics.events.labels(outcome).inc()

    took = engine.census.pace.writes.observe
    # Each brings its own libraries, and kopf is none that a folder should start.
    if settings.store_folder is not None:
        from boardlet_bridge.folder.store import FolderSettings, FolderStore

        return FolderStore(FolderSettings(**_of(settings, FolderSettings)), engine, wrote, took)

    from boardlet_bridge.kube.store import KubeSettings, KubeStore

    return KubeStore(KubeSettings(**_of(settings, KubeSettings)), engine, wrote, noticed, took)


def _of(settings: Settings, part: Any) -> dict[str, Any]:
    # A layer's own settings are named as the bridge's.
    return {field.name: getattr(settings, field.name) for field in fields(part)}


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
        psk_file=settings.broker_psk_file,
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
