"""What happens to bridges that share a fleet, and how long until every board has answered who serves it then."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Final

import controlplane
from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.site import Site
from fleet.control import Fleet

from .edits import Edits
from .objects import Objects
from .usage import Window, rss_mb

WITHIN_S: Final = 120.0
READY_S: Final = 900.0  # the roll-out, as fast as the API server takes its writes
LOOK_S: Final = 0.1
REPORTS: Final = 'boardlet_messages_total{topic="r"}'
CONFLICTS: Final = 'boardlet_status_writes_total{outcome="conflict"}'


def _bridge(site: Site, name: str, **settings: object) -> BridgeProcess:
    folder = site.folder / name
    folder.mkdir(exist_ok=True)
    return BridgeProcess(folder, {**site.settings, "replica_name": name, **settings})


class Scenes:
    """What is done to the bridges, and how long each takes."""

    def __init__(self, plane: controlplane.ControlPlane, site: Site, fleet: Fleet, chosen: argparse.Namespace) -> None:
        self._site, self._fleet, self._chosen = site, fleet, chosen
        self._beside = {"API server": plane.apiserver, "etcd": plane.etcd, "broker": site.broker.process}
        self._bridges = [_bridge(site, name) for name in ascii_lowercase[: chosen.replicas]]
        self._paused: BridgeProcess | None = None
        self.moments: list[tuple[str, ...]] = [("moment", "boards moved", "all served after")]
        self.costs: list[tuple[str, ...]] = [("replica", "boards", "reports/s", "conflicts", "CPU share", "RSS MB")]
        self.loaded: list[tuple[str, ...]] = [("under load", "edits to their statuses")]

    def kill(self) -> None:
        """End every bridge."""
        for bridge in self._bridges:
            bridge.kill()

    async def play(self, kubeconfig: Path) -> None:
        """Every scene, with all boards Ready at its end."""
        last = self._bridges[-1]
        async with Objects(kubeconfig, "default") as objects:
            for bridge in self._bridges[:-1]:
                bridge.start()
            self._fleet.connect()
            began = time.monotonic()
            await objects.create(self._fleet.ids)
            await objects.until(lambda: len(objects.ready) == len(self._fleet.ids), READY_S)
            self._note("all objects are made, all boards Ready", 0, time.monotonic() - began)
            await self._moment("one more replica comes", last.process.start)
            await self._moment("it is paused (SIGSTOP)", lambda: self._pause(last))
            await self._moment("it wakes up", lambda: self._wake(last))
            await self._moment("it is killed (kill -9)", last.kill)
            await self._moment("it comes back", last.process.start)
            await self._under_load(objects)
            await self._moment("it stops (TERM)", self._bridges[-1].stop)
            await objects.until(lambda: len(objects.ready) == len(self._fleet.ids), WITHIN_S)
            await self._truthful(objects)

    async def _under_load(self, objects: Objects) -> None:
        count, busy = len(self._fleet.ids), len(self._fleet.ids) // 10
        self._fleet.change((0, busy, self._chosen.busy_hz), (busy, count, 1 / 60))
        async with Edits(objects, self._chosen.edits_per_s) as edits:
            began = time.monotonic()
            for n in range(len(self._bridges)):
                await self._moment(f"upgrade {n + 1}: it stops", self._bridges[n].stop)
                await self._moment(f"upgrade {n + 1}: a new one starts", partial(self._upgrade, n))
            self._note("the whole upgrade", count, time.monotonic() - began)
        self.loaded.append(("a rolling upgrade", edits.said()))
        async with Edits(objects, self._chosen.edits_per_s) as edits:
            await self._costs()
        self.loaded.append(("all serve", edits.said()))
        async with Edits(objects, self._chosen.edits_per_s) as edits:
            await self._moment("under load: it is killed (kill -9)", self._bridges[-1].kill)
        self.loaded.append(("one is killed", edits.said()))
        self._fleet.change()
        await self._moment("it comes back", self._bridges[-1].process.start)

    def _pause(self, bridge: BridgeProcess) -> None:
        bridge.process.pause()
        self._paused = bridge

    def _wake(self, bridge: BridgeProcess) -> None:
        self._paused = None
        bridge.process.resume()

    def _upgrade(self, n: int) -> None:
        # Its settings are other ones too: from here on the budget is the one that was asked for.
        share = self._chosen.writes_per_s / len(self._bridges)
        self._bridges[n] = _bridge(self._site, ascii_lowercase[n], status_writes_per_s=share)
        self._bridges[n].process.start()

    async def _costs(self) -> None:
        bridges = {ascii_lowercase[n]: bridge.process for n, bridge in enumerate(self._bridges)}
        window = Window(lambda: {**bridges, **self._beside})
        before, began = [await _metric(bridge, REPORTS) for bridge in self._bridges], time.monotonic()
        await asyncio.sleep(self._chosen.seconds)
        took, used = time.monotonic() - began, window.end()
        for n, bridge in enumerate(self._bridges):
            boards, reports, conflicts = [await _metric(bridge, m) for m in ("boardlet_boards", REPORTS, CONFLICTS)]
            name, heard = ascii_lowercase[n], f"{(reports - before[n]) / took:.0f}"
            usage = f"{used[name] / took:.2f}", f"{rss_mb(bridge.process):.0f}"
            self.costs.append((name, f"{boards:.0f}", heard, f"{conflicts:.0f}", *usage))
        for name, process in self._beside.items():
            self.costs.append((name, "", "", "", f"{used[name] / took:.2f}", f"{rss_mb(process):.0f}"))

    async def _truthful(self, objects: Objects) -> None:
        began = time.monotonic()
        while found := objects.differences(await asyncio.to_thread(self._fleet.state)):
            if time.monotonic() - began > READY_S:
                raise AssertionError(f"{len(found)} differences: {found[:5]}")
            await asyncio.sleep(1)
        self._note("every object says what its board says", 0, time.monotonic() - began)

    def _note(self, what: str, moved: int, seconds: float) -> None:
        self.moments.append((what, str(moved or ""), f"{seconds:.1f} s"))
        print(f"replicas: {self.moments[-1]}", file=sys.stderr, flush=True)

    async def _moment(self, name: str, begin: Callable[[], None]) -> None:
        served = [await self._served(bridge) for bridge in self._bridges]
        began = time.monotonic()
        await asyncio.to_thread(begin)
        while True:
            now = [await self._served(bridge) for bridge in self._bridges]
            settled = now != served and sum(live for _, live in now) == len(self._fleet.ids)
            if settled and sum(held for held, _ in now) == len(self._fleet.ids):
                break
            if time.monotonic() - began > WITHIN_S:
                tails = "\n".join(bridge.process.tail() for bridge in self._bridges)
                raise TimeoutError(f"{name}: {now}\n{tails}")
            await asyncio.sleep(LOOK_S)
        moved = sum(abs(after - before) for (before, _), (after, _) in zip(served, now, strict=True)) // 2
        self._note(name, moved, time.monotonic() - began)

    async def _served(self, bridge: BridgeProcess) -> tuple[int, int]:
        # How many boards it holds, and how many of them have answered it.
        if bridge is self._paused or not bridge.process.running:
            return 0, 0
        held, live = await _metric(bridge, "boardlet_boards"), await _metric(bridge, "boardlet_boards_connected")
        return int(held), int(live)


async def _metric(bridge: BridgeProcess, name: str) -> float:
    return await asyncio.to_thread(bridge.metric, name)
