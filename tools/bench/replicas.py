"""`python -m bench replicas`: bridges that share a fleet come, stop, are killed and paused; prints a table.

A moment counts until every board has answered the replica that serves it then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import broker as brokers
import controlplane
from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from fleet.control import Fleet
from provision.missing import Missing
from provision.progress import for_stream
from rich.console import Console
from rich.table import Table

from .objects import Objects
from .usage import cpu_s, rss_mb

WITHIN_S: Final = 120.0
LOOK_S: Final = 0.1
REPORTS: Final = 'boardlet_messages_total{topic="r"}'
CONFLICTS: Final = 'boardlet_status_writes_total{outcome="conflict"}'


def main(argv: Sequence[str]) -> int:
    """Measure; returns the exit code: 3 for what this machine lacks."""
    parser = argparse.ArgumentParser(prog="python -m bench replicas", description=__doc__)
    parser.add_argument("--boards", type=int, default=2000, help="simulated boards (default 2,000)")
    parser.add_argument("--lease-s", type=int, default=15, help="duration of a lease (default 15)")
    chosen = parser.parse_args(argv)
    progress = for_stream(sys.stderr)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="boardlet-replicas-")))
            programs = controlplane.find(progress)
            plane = stack.enter_context(controlplane.ControlPlane(folder / "plane", programs))
            cluster = Cluster(programs.kubectl, plane.kubectl_env(), namespace="default")
            cluster.install()
            settings = {"namespaces": '["default"]', "status_writes_per_s": 200, "log_level": "warning"}
            site = Site(folder / "site", cluster, brokers.find(progress), {**settings, "lease_s": chosen.lease_s})
            fleet = Fleet(site, chosen.boards)
            stack.callback(site.stop)
            site.broker.start()
            cluster.bridge_kubeconfig(folder / "site/bridge.kubeconfig")
            bridges = [_bridge(site, name) for name in "abc"]
            for bridge in bridges:
                stack.callback(bridge.kill)
            stack.enter_context(fleet)
            scenes = Scenes(bridges, fleet)
            asyncio.run(scenes.play(plane.kubeconfig()))
    except Missing as missing:
        print(f"bench: this machine lacks something: {missing}", file=sys.stderr)
        return 3
    title = f"{chosen.boards} boards, lease {chosen.lease_s} s; {platform.machine()}, {os.cpu_count()} cores"
    for rows in (scenes.moments, scenes.costs):
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1:]:
            table.add_row(*row)
        Console(width=110).print(table)
    return 0


def _bridge(site: Site, name: str) -> BridgeProcess:
    folder = site.folder / name
    folder.mkdir()
    return BridgeProcess(folder, {**site.settings, "replica_name": name})


class Scenes:
    """What is done to three bridges, and how long each takes."""

    def __init__(self, bridges: Sequence[BridgeProcess], fleet: Fleet) -> None:
        self._bridges, self._fleet = bridges, fleet
        self._paused: BridgeProcess | None = None
        self.moments: list[tuple[str, ...]] = [("moment", "boards moved", "all served after")]
        self.costs: list[tuple[str, ...]] = [("replica", "boards", "reports heard", "conflicts", "CPU s", "RSS MB")]

    async def play(self, kubeconfig: Path) -> None:
        """Every scene, with all boards Ready at its end."""
        a, b, c = self._bridges
        async with Objects(kubeconfig, "default") as objects:
            a.start()
            b.start()
            self._fleet.connect()
            await objects.create(self._fleet.ids)
            await objects.until(lambda: len(objects.ready) == len(self._fleet.ids), WITHIN_S)
            await self._moment("a third one comes", c.process.start)
            await self._moment("it is paused (SIGSTOP)", lambda: self._pause(c))
            await self._moment("it wakes up", lambda: self._wake(c))
            await self._moment("it is killed (kill -9)", c.kill)
            await self._moment("it comes back", c.process.start)
            await asyncio.sleep(1)
            for name, bridge in zip("abc", self._bridges, strict=True):
                numbers = [await _metric(bridge, m) for m in ("boardlet_boards", REPORTS, CONFLICTS)]
                usage = f"{cpu_s(bridge.process):.1f}", f"{rss_mb(bridge.process):.0f}"
                self.costs.append((name, *(f"{n:.0f}" for n in numbers), *usage))
            await self._moment("it stops (TERM)", lambda: bridge_term(c))
            await objects.until(lambda: len(objects.ready) == len(self._fleet.ids), WITHIN_S)

    def _pause(self, bridge: BridgeProcess) -> None:
        bridge.process.pause()
        self._paused = bridge

    def _wake(self, bridge: BridgeProcess) -> None:
        self._paused = None
        bridge.process.resume()

    async def _moment(self, name: str, begin: Callable[[], None]) -> None:
        served = [await self._served(bridge) for bridge in self._bridges]
        began = time.monotonic()
        begin()
        while True:
            now = [await self._served(bridge) for bridge in self._bridges]
            settled = now != served and sum(live for _, live in now) == len(self._fleet.ids)
            if settled and sum(held for held, _ in now) == len(self._fleet.ids):
                break
            if time.monotonic() - began > WITHIN_S:
                raise TimeoutError(f"{name}: {now}")
            await asyncio.sleep(LOOK_S)
        moved = sum(abs(after - before) for (before, _), (after, _) in zip(served, now, strict=True)) // 2
        self.moments.append((name, str(moved), f"{time.monotonic() - began:.1f} s"))
        print(f"replicas: {self.moments[-1]}", file=sys.stderr, flush=True)

    async def _served(self, bridge: BridgeProcess) -> tuple[int, int]:
        # How many boards it holds, and how many of them have answered it.
        if bridge is self._paused or not bridge.process.running:
            return 0, 0
        held, live = await _metric(bridge, "boardlet_boards"), await _metric(bridge, "boardlet_boards_connected")
        return int(held), int(live)


def bridge_term(bridge: BridgeProcess) -> None:
    """Ask it to end."""
    bridge.process.stop()


async def _metric(bridge: BridgeProcess, name: str) -> float:
    return await asyncio.to_thread(bridge.metric, name)
