"""A site with several replicas of the bridge, and scenes with its boards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import broker as brokers
import pytest
from bench.objects import Objects
from boardlet_cli.cluster import Cluster
from controlplane import ControlPlane
from fleet.control import Fleet
from scene import BOARDS, WAIT_S, Play, Replicas, Scene


@pytest.fixture
def replicas(
    tmp_path: Path, cluster: Cluster, plane: ControlPlane, broker_programs: brokers.Programs
) -> Iterator[Replicas]:
    made = Replicas(tmp_path / "site", cluster, plane, broker_programs)
    yield made
    made.stop()


@pytest.fixture
def play(replicas: Replicas, plane: ControlPlane) -> Play:
    """Plays a scene with boards that are all Ready; replicas must have been started."""

    def play(scene: Callable[[Scene], Awaitable[None]]) -> None:
        async def run(fleet: Fleet) -> None:
            async with Objects(plane.kubeconfig(), str(replicas.cluster.namespace)) as objects:
                fleet.connect()
                await objects.create(fleet.ids)
                await objects.until(lambda: len(objects.ready) == len(fleet.ids), WAIT_S)
                made = Scene(replicas, fleet, objects)
                await made.right()
                await scene(made)
                await objects.delete()

        with Fleet(replicas.site, BOARDS) as fleet:
            asyncio.run(run(fleet))

    return play
