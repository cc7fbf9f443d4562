"""This process as one replica of its site: what it holds by its Lease, engine and session serve, and nothing else."""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from boardlet_bridge.core.root_key import RootKeys
from boardlet_bridge.core.store import Store
from boardlet_bridge.kube.lease import tidy
from boardlet_bridge.mqtt.session import MqttSession
from boardlet_bridge.runtime.credential import Credentials
from boardlet_bridge.runtime.dynamic_security import DynamicLogins
from boardlet_bridge.runtime.engine import Engine
from boardlet_bridge.runtime.fence import Fence, Gate
from boardlet_bridge.runtime.membership import Membership
from boardlet_bridge.runtime.settings import Settings
from boardlet_bridge.runtime.shard import BUCKETS

KEEPER: Final = "00"  # who holds this bucket keeps the broker's files of logins, for the boards of all


def site_of(roots: RootKeys, settings: Settings) -> str:
    """What replicas of one site have in common: who has another key, broker or namespaces serves other boards.

    The key is the oldest one, so that it stays while a new one is brought to one replica after the other.
    """
    served = repr((settings.broker_host, settings.broker_port, sorted(settings.namespaces)))
    return hmac.digest(roots[-1].key, f"replicas of {served}".encode(), "sha256").hex()[:8]


class Replica:
    """The hands of a membership; without one, where the store is no cluster or `lease_s` is 0, it serves everything."""

    def __init__(self, settings: Settings, roots: RootKeys, engine: Engine) -> None:
        self._settings, self._engine = settings, engine
        self._site = site_of(roots, settings)
        self.fence = Fence(settings.lease_s)
        self.fence.alone = True
        self._membership: Membership | None = None
        self._store: Store
        self._session: MqttSession
        self._credentials: Credentials | DynamicLogins | None = None

    def join(self, store: Store, session: MqttSession, credentials: Credentials | DynamicLogins | None) -> None:
        """Hold nothing from now on but what the Leases give, if the store has any."""
        self._store, self._session, self._credentials = store, session, credentials
        settings = self._settings
        leases = store.leases(lambda: self.fence.sure) if settings.lease_s else None
        if leases is None:
            return
        self.fence.alone = False
        self._engine.registry.held.clear()
        session.release(BUCKETS)
        self._membership = Membership(
            leases,
            self,
            self.fence,
            namespace=settings.lease_namespace or leases.namespace,
            site=self._site,
            name=tidy(settings.replica_name or socket.gethostname(), self._site),
            holder=session.client_id,
            duration_s=settings.lease_s,
            absent_s=settings.broker_absent_s,
        )

    @property
    def why(self) -> str:
        """Why it cannot keep its lease, "" while it can."""
        return self._membership.why if self._membership else ""

    @property
    def succeeded(self) -> bool:
        """Whether other replicas live, who serve its boards when it is gone."""
        return self._membership is not None and bool(self._membership.others)

    async def serve(self) -> None:
        """Keep the session with the broker, once it is known what to serve."""
        if self._membership is not None:
            await self._membership.joined.wait()
        await self._session.run()

    @contextmanager
    def taking_part(self) -> Iterator[list[asyncio.Task[None]]]:
        """The lease is kept within this block, by the tasks that it gives."""
        tasks = [asyncio.create_task(self._membership.run(), name="lease")] if self._membership else []
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()

    async def leave(self) -> None:
        """Give the lease back, when nothing is served or written any more."""
        if self._membership is not None:
            await self._membership.leave()

    # What the membership decides
    def hold(self, buckets: frozenset[str]) -> None:
        assert self._membership is not None, "it is the one that asks"
        self._session.replicas = self._membership.holders - {self._session.client_id}
        self._engine.hold(buckets, fresh=not self._membership.joined.is_set())
        self._session.hold(buckets)
        if self._credentials is not None:
            self._credentials.again()

    def release(self, buckets: frozenset[str]) -> None:
        self._session.release(buckets)
        self._engine.release(buckets)

    async def landed(self) -> None:
        await self._store.landed()

    def reaches(self) -> bool:
        return self._session.connected

    def reopened(self) -> None:
        assert self._membership is not None, "it is the one that asks"
        self._session.replicas = self._membership.holders - {self._session.client_id}
        self._session.resume()

    # What others ask before they act
    def may_send(self, topic: str, payload: bytes, retain: bool) -> bool | None:
        """True; False for never; None for not before the lease is known to hold."""
        gate = self.fence.gate
        if gate is Gate.ADRIFT:
            return self._engine.may_send(topic, payload, retain)
        return True if gate is Gate.OPEN else None

    def keeps(self) -> bool | None:
        """Whether the broker's files of logins are this replica's to keep; None while it is not sure."""
        if KEEPER not in self._engine.registry.held:
            return False
        return self.fence.sure or None
