"""Status writes on a real API server: at once, coalesced, nothing for nothing, patient, and the last value lands."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from boardlet_bridge.kube import connection
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import KubeClient
from boardlet_bridge.kube.status_writer import Key, StatusWriter
from boardlet_cli.cluster import Cluster
from controlplane import ControlPlane
from fakes.api_proxy import ApiProxy, Fault, writing
from waiting import until

INTERVAL_S = 1.0


class World:
    """A Board at a real API server, a writer, and the values that its status is to show."""

    def __init__(self, client: KubeClient, cluster: Cluster, burst: int, per_s: float) -> None:
        self.client = client
        self.key: Key = ("boards", cluster.namespace or "", "g1")
        self.outcomes: Counter[str] = Counter()
        self.seen: list[tuple[float, Mapping[str, Any]]] = []
        self.reported: dict[str, Any] = {}
        self.object: Mapping[str, Any] = {}
        self.writer = StatusWriter(
            client,
            self.snapshot,
            self.written,
            interval_s=INTERVAL_S,
            budget=Budget(per_s, burst),
            observe=lambda outcome: self.outcomes.update([outcome]),
        )

    def snapshot(self, key: Key) -> dict[str, Any] | None:
        status = {"reported": dict(self.reported)}
        if (self.object.get("status") or {}).get("reported") == self.reported:
            return None
        meta = {k: self.object["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion")}
        return {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": meta, "status": status}

    def written(self, key: Key, obj: Mapping[str, Any]) -> None:
        self.object = obj
        self.seen.append((asyncio.get_running_loop().time(), obj))

    def mark(self, urgent: bool = False, **reported: Any) -> float:
        self.reported |= reported
        self.writer.mark(self.key, urgent)
        return asyncio.get_running_loop().time()


Script = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def play(plane: ControlPlane, cluster: Cluster) -> Callable[..., World]:
    """Runs a script against a writer, through the kubeconfig given or straight."""
    spec = {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}}
    board = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "g1"}, "spec": spec}
    cluster.run("create", "-f", "-", stdin=json.dumps(board))

    def run(script: Script, kubeconfig: Path | None = None, burst: int = 100, per_s: float = 100.0) -> World:
        async def played() -> World:
            async with KubeClient(connection.from_file(kubeconfig or plane.kubeconfig())) as client:
                world = World(client, cluster, burst, per_s)
                world.object = await client.get(*world.key)
                task = asyncio.create_task(world.writer.run())
                try:
                    await script(world)
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                return world

        return asyncio.run(played())

    return run


def there(cluster: Cluster) -> dict[str, Any]:
    return dict(cluster.get("board", "g1")["status"]["reported"])


def test_values_fall_together_and_the_last_one_lands(play: Callable[..., World], cluster: Cluster) -> None:
    """Two hundred changes of a value in two seconds are one write per interval, and the last one stands there."""

    async def script(world: World) -> None:
        world.mark(light=0)
        for n in range(1, 201):
            world.mark(light=n)
            await asyncio.sleep(0.01)
        await until(lambda: not world.writer.pending)

    world = play(script)
    assert there(cluster) == {"light": 200}
    assert 2 <= world.outcomes["written"] <= 5
    times = [at for at, _ in world.seen]
    assert min(b - a for a, b in pairwise(times)) > 0.8 * INTERVAL_S


def test_a_condition_does_not_wait_for_the_interval_of_values(play: Callable[..., World], cluster: Cluster) -> None:
    """A changed condition is written at once though a value was just written, and takes the newest values along."""

    async def script(world: World) -> None:
        world.mark(light=1)
        await until(lambda: world.outcomes["written"] == 1)
        world.mark(light=2)
        at = world.mark(urgent=True, door=True)
        await until(lambda: world.outcomes["written"] == 2)
        assert world.seen[-1][0] - at < INTERVAL_S / 2
        assert there(cluster) == {"light": 2, "door": True}
        await asyncio.sleep(1.5 * INTERVAL_S)
        assert not world.writer.pending

    assert play(script).outcomes == {"written": 2}


def test_nothing_is_written_for_nothing(play: Callable[..., World], cluster: Cluster) -> None:
    """A value that went and came back, and marks without a change, send no request."""

    async def script(world: World) -> None:
        world.mark(light=1)
        await until(lambda: world.outcomes["written"] == 1)
        version = world.object["metadata"]["resourceVersion"]
        for n in range(50):
            world.mark(urgent=n % 2 == 0)
        world.mark(light=2)
        world.mark(light=1)
        await until(lambda: not world.writer.pending)
        assert cluster.get("board", "g1")["metadata"]["resourceVersion"] == version

    assert play(script).outcomes == {"written": 1}


def test_retry_after_is_obeyed(
    play: Callable[..., World], cluster: Cluster, plane: ControlPlane, tmp_path: Path
) -> None:
    """An API server that says 429 and Retry-After: 1 is asked once a second, and gets the last value in the end."""
    with ApiProxy(plane, seed=1) as proxy:
        straight = cluster.bridge_kubeconfig(tmp_path / "straight")  # a token, which the proxy can pass on
        kubeconfig = proxy.kubeconfig(straight, tmp_path / "kubeconfig")

        async def script(world: World) -> None:
            proxy.faults = [Fault("429", writing)]
            began = world.mark(urgent=True, light=1)
            for n in range(2, 250):
                world.mark(urgent=True, light=n)
                await asyncio.sleep(0.01)
            asked, asking_s = proxy.counts["429"], asyncio.get_running_loop().time() - began
            assert 2 <= asked <= asking_s + 1.1
            proxy.faults = []
            await until(lambda: not world.writer.pending)

        world = play(script, kubeconfig)
    assert world.outcomes["written"] == 1
    assert there(cluster) == {"light": 249}


def test_another_writer(play: Callable[..., World], cluster: Cluster) -> None:
    """An edit of the spec between two writes is a conflict, read again at once: edit and value both stay."""

    async def script(world: World) -> None:
        for n in range(3):
            patch = json.dumps({"spec": {"properties": {"led": n % 2 == 0}}})
            await asyncio.to_thread(cluster.run, "patch", "board", "g1", "--type=merge", "-p", patch)
            world.mark(urgent=True, light=n)
            await until(lambda: not world.writer.pending)
        assert cluster.get("board", "g1")["spec"]["properties"] == {"led": True}
        assert there(cluster) == {"light": 2}

    assert play(script).outcomes == {"written": 3, "conflict": 3}
