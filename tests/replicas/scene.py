"""A site with several replicas of the bridge: each behind a proxy of its own, which keeps what it wrote, and when."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import broker as brokers
from aiohttp import web
from bench.objects import Objects
from boardlet_bridge.core.root_key import only
from boardlet_bridge.kube.lease import SITE, VIEW
from boardlet_bridge.runtime.replica import site_of
from boardlet_bridge.runtime.settings import Settings
from boardlet_bridge.runtime.shard import share
from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boardlet_wire.topic import bucket
from controlplane import ControlPlane
from fakes.api_proxy import ApiProxy, Fault
from fleet.control import Fleet

LEASE_S: Final = 5  # a busy machine may stand still for seconds, which must move nothing
WAIT_S: Final = 20.0
BOARDS: Final = 24
SYSTEM: Final = "boardlet-system"


@dataclass
class Replica:
    """One bridge process of the site."""

    name: str
    bridge: BridgeProcess
    proxy: ApiProxy
    writes: list[tuple[float, str]] = field(default_factory=list)
    """When it asked for a write of which Board, as it reached the proxy."""

    def start(self) -> None:
        self.bridge.start()

    @property
    def serves(self) -> int:
        """How many Boards it serves, by its own count."""
        return int(self.bridge.metric("boardlet_boards"))

    @property
    def wrote(self) -> set[str]:
        return {board for _, board in self.writes}

    def wrote_since(self, when: float) -> set[str]:
        return {board for at, board in self.writes if at >= when}


class Replicas:
    """The site; nothing runs but its broker."""

    def __init__(self, folder: Path, cluster: Cluster, plane: ControlPlane, programs: brokers.Programs) -> None:
        settings = {"namespaces": f'["{cluster.namespace}"]', "lease_s": LEASE_S, "status_interval_s": 0.5}
        self.cluster, self._plane = cluster, plane
        self.site = Site(folder, cluster, programs, settings)
        self.site.broker.start()
        self._kubeconfig = cluster.bridge_kubeconfig(folder / "bridge.kubeconfig")
        self.all: list[Replica] = []

    def add(self, name: str, kubeconfig: Path | None = None, **settings: object) -> Replica:
        """Another replica, not started."""
        folder = self.site.folder / name
        folder.mkdir()
        proxy = ApiProxy(self._plane, len(self.all)).__enter__()
        own = proxy.kubeconfig(kubeconfig or self._kubeconfig, folder / "kubeconfig")
        bridge = BridgeProcess(
            folder, {**self.site.settings, "kubeconfig": own, "replica_name": name, "log_level": "debug", **settings}
        )
        made = Replica(name, bridge, proxy)

        def note(request: web.BaseRequest) -> bool:
            parts = request.path.split("/")
            if request.method == "PATCH" and "boards" in parts:
                made.writes.append((time.monotonic(), parts[parts.index("boards") + 1]))
            return False

        proxy.faults = [Fault("none", note)]
        self.all.append(made)
        return made

    def start(self, *replicas: Replica) -> None:
        """Start these; returns when all know of all."""
        for replica in replicas:
            replica.bridge.process.start()
        for replica in replicas:
            replica.bridge.wait_ready()
        names = {replica.name for replica in replicas}
        deadline = time.monotonic() + WAIT_S
        while self.leases() != dict.fromkeys(names, names):
            assert time.monotonic() < deadline, self.leases()

    def leases(self) -> dict[str, set[str]]:
        """The published view of each replica that has a lease, by name."""
        found = self.cluster.run("get", "leases", "-n", SYSTEM, "-l", f"{SITE}={self.label}", "-o", "json").stdout
        return {
            item["metadata"]["name"].removeprefix(f"boardlet-{self.label}-"): set(
                item["metadata"]["annotations"][VIEW].split(",")
            )
            for item in json.loads(found)["items"]
        }

    @property
    def label(self) -> str:
        chosen = Settings.model_construct(
            broker_host="127.0.0.1", broker_port=self.site.broker.port, namespaces=[str(self.cluster.namespace)]
        )
        return site_of(only(self.site.root), chosen)

    def writers(self) -> dict[str, list[str]]:
        """Of each Board who wrote it, in order, without repetitions: A, B means that B followed A for good."""
        found: dict[str, list[str]] = {}
        for _, board, name in sorted((at, board, r.name) for r in self.all for at, board in r.writes):
            order = found.setdefault(board, [])
            if order[-1:] != [name]:
                order.append(name)
        return found

    def stop(self) -> None:
        for replica in self.all:
            replica.bridge.kill()
        with ThreadPoolExecutor() as pool:  # each waits a second for what is open
            for replica in self.all:
                pool.submit(replica.proxy.__exit__, None, None, None)
        self.site.stop()
        for replica in self.all:
            print(f"--- {replica.name}\n{replica.bridge.log[-5000:]}")


async def until(true: Callable[[], bool], wait_s: float = WAIT_S) -> float:
    """Seconds until it is true; it is asked in a thread."""
    began = time.monotonic()
    while not await asyncio.to_thread(true):
        if time.monotonic() - began > wait_s:
            raise TimeoutError(f"not so after {wait_s:.0f} s")
        await asyncio.sleep(0.02)
    return time.monotonic() - began


@dataclass
class Scene:
    """A site with a fleet, and the objects of its boards."""

    replicas: Replicas
    fleet: Fleet
    objects: Objects

    async def right(self, wait_s: float = WAIT_S) -> float:
        """Seconds until every object is Ready and says what its board does."""
        return await until(lambda: not self.objects.differences(self.fleet.state()), wait_s)

    async def edit(self, target: int, wait_s: float = WAIT_S) -> float:
        """Edit every Board; seconds until all have followed."""
        for name in self.fleet.ids:
            await self.objects.patch(name, {"target": target})
        return await self.right(wait_s)


Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


def owners(scene: Scene, *live: Replica) -> dict[str, str]:
    """Which replica each Board's bucket falls to."""
    view = frozenset(replica.name for replica in live)
    return {i: next(n for n in view if bucket(i) in share(n, view)) for i in scene.fleet.ids}
