"""The watch of Boards on a real API server: goes on where a listing ended, and through breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from boardlet_bridge.kube import board_watch, connection
from boardlet_bridge.kube.board_watch import BoardWatch
from boardlet_bridge.kube.client import KubeClient, Unavailable
from boardlet_bridge.kube.resync import Resync
from boardlet_cli.cluster import Cluster
from controlplane import ControlPlane

WAIT_S = 20.0


class Sink:
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def on_board(self, change: str, obj: Mapping[str, Any]) -> None:
        self.told.append((change, obj["metadata"]["name"]))

    def on_model(self, change: str, obj: Mapping[str, Any]) -> None: ...
    def on_rewound(self) -> None: ...

    async def until(self, *wanted: tuple[str, str]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not set(wanted) <= set(self.told):
                await asyncio.sleep(0.01)


class Broken:
    """The real client, whose first watches give these lines, or fail so."""

    def __init__(self, real: KubeClient, lines: list[bytes | Exception]) -> None:
        self.real, self.lines = real, lines
        self.since: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    @asynccontextmanager
    async def watch(self, plural: str, since: str, namespace: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
        self.since.append(since)
        if not self.lines:
            async with self.real.watch(plural, since, namespace) as chunks:
                yield chunks
            return
        line = self.lines.pop(0)
        if isinstance(line, Exception):
            raise line

        async def chunks() -> AsyncIterator[bytes]:
            for n in range(len(line)):  # in the smallest pieces
                yield line[n : n + 1]

        yield chunks()


def board(cluster: Cluster, name: str) -> None:
    kind = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": name}}
    body = {**kind, "spec": {"boardID": f"{name:0>8}", "modelRef": {"name": "m"}}}
    cluster.run("create", "-f", "-", stdin=json.dumps(body))


async def play(cluster: Cluster, plane: ControlPlane, lines: list[bytes | Exception], again: bool = False) -> Broken:
    """a is there at first, b is created before the watch begins, c while it runs, and a is deleted."""
    sink = Sink()
    namespaces = [str(cluster.namespace)]
    async with KubeClient(connection.find(Path(plane.kubeconfig()))) as real:
        client = Broken(real, lines)
        resync = Resync(cast(KubeClient, client), sink, namespaces, dict, dict)
        await asyncio.to_thread(board, cluster, "a")
        await resync.once()
        await asyncio.to_thread(board, cluster, "b")
        watch = BoardWatch(cast(KubeClient, client), resync, namespaces, sink)
        task = asyncio.create_task(watch.run())
        try:
            if again:
                await sink.until(("ADDED", "b"))
                watch.restart()
                await sink.until(("MODIFIED", "b"))
            await asyncio.to_thread(board, cluster, "c")
            await asyncio.to_thread(cluster.run, "delete", "board", "a")
            seen = {name for _, name in sink.told}
            await sink.until(("DELETED", "a"))
            assert {"a", "b"} <= seen | {name for _, name in sink.told}
            assert "c" in {name for _, name in sink.told}
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return client


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_watch, "FIRST_PAUSE_S", 0.01)


def test_nothing_is_lost_between_listing_and_watch(cluster: Cluster, plane: ControlPlane) -> None:
    """What happens between the end of the listing and the begin of the watch is told, without a second listing."""
    client = asyncio.run(play(cluster, plane, []))
    assert len(client.since) == 1


def test_a_break_goes_on_where_it_was(cluster: Cluster, plane: ControlPlane) -> None:
    """A watch that broke begins again after the last change or bookmark that it told, wherever the break fell."""
    client = asyncio.run(play(cluster, plane, [Unavailable("503"), b'{"type": "MODI', b"garbage\n", b""]))
    assert len(set(client.since)) == 1
    assert len(client.since) == 5


def test_too_old_is_listed_anew(cluster: Cluster, plane: ControlPlane) -> None:
    """After a 410 all objects are listed, and the watch goes on from there."""
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
    client = asyncio.run(play(cluster, plane, [json.dumps(gone).encode() + b"\n"]))
    assert len(client.since) == 2
    assert int(client.since[1]) > int(client.since[0])


def test_a_restart_lists_anew(cluster: Cluster, plane: ControlPlane) -> None:
    """Told to begin anew, as when the cluster was restored, the watch lists first."""
    client = asyncio.run(play(cluster, plane, [], again=True))
    assert len(client.since) == 2
