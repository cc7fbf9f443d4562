"""A fleet under load, phase by phase: real control plane, broker, bridge process; simulated boards on real sockets.

Every phase ends when objects and boards say the same, property by property, and tells what it took. What a phase did
to the API server is counted by the API server itself.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import controlplane
from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.site import Site
from fleet.control import Fleet
from provision.process import Process

from .latency import Times
from .objects import Objects, condition, is_ready
from .usage import Window, cpu_s, peak_mb, rss_mb

STORM_S: Final = 300.0
SETTLE_S: Final = 0.5
A_MINUTE: Final = 1 / 60
BUSY_SHARE: Final = 10  # one board in so many changes one property at BUSY_HZ
BUSY_HZ: Final = 3.0
RELIST_S: Final = 15.0  # the second listing of a bridge comes ten seconds after the first
REPORTS: Final = 'boardlet_messages_total{topic="r"}'

Say = Callable[[str], None]


@dataclass
class Load:
    """One site with its fleet, and what was measured so far."""

    plane: controlplane.ControlPlane
    site: Site
    fleet: Fleet
    objects: Objects
    say: Say = lambda text: print(f"fleet: {text}", file=sys.stderr, flush=True)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def processes(self) -> dict[str, Process]:
        return {
            "bridge": self.site.bridge.process,
            "broker": self.site.broker.process,
            "apiserver": self.plane.apiserver,
            "etcd": self.plane.etcd,
            "fleet": self.fleet.process,
        }

    async def metric(self, name: str) -> float:
        return await asyncio.to_thread(self.site.bridge.metric, name)

    async def until_metric(self, name: str, true: Callable[[float], bool], within_s: float = STORM_S) -> float:
        """Seconds until a metric of the bridge is so."""
        began = time.monotonic()
        while not true(await self.metric(name)):
            if time.monotonic() - began > within_s:
                raise TimeoutError(f"{name} is {await self.metric(name)} after {within_s:.0f} s")
            await asyncio.sleep(0.25)
        return time.monotonic() - began

    async def truthful(self, within_s: float = STORM_S) -> float:
        """Seconds until no object differs from its board and the bridge has nothing to write."""
        began = time.monotonic()
        while True:
            state = await asyncio.to_thread(self.fleet.state)
            found = self.objects.differences(state)
            if not found and not await self.metric("boardlet_status_pending"):
                return time.monotonic() - began
            if time.monotonic() - began > within_s:
                raise AssertionError(f"{len(found)} differences after {within_s:.0f} s: {found[:5]}")
            await asyncio.sleep(SETTLE_S)

    async def phase(self, name: str, steps: Callable[[dict[str, Any]], Any]) -> None:
        """Run one phase; its figures with the CPU of all processes and the API's writes."""
        self.say(f"{name} …")
        gc.collect()
        gc.freeze()  # ten thousand objects: what measures must not stop to look through them
        window, began = Window(lambda: self.processes), time.monotonic()
        writes, events = await self.api_writes(), self.objects.events
        found: dict[str, Any] = self.figures.setdefault(name, {})
        await steps(found)
        found["took_s"] = round(time.monotonic() - began, 2)
        found["cpu_s"] = window.end()
        found["api_writes"] = await self.api_writes() - writes
        found["object_events"] = self.objects.events - events
        found["bridge_rss_mb"] = rss_mb(self.site.bridge.process)
        self.say(f"{name}: {found}")

    async def api_writes(self) -> int:
        """Writes of Boards and their statuses that the API server has taken so far, by its own count."""
        text = await self.objects.text("/metrics")
        lines = re.findall(r'^apiserver_request_total\{([^}]*resource="boards"[^}]*)\} (\S+)$', text, re.MULTILINE)
        verbs = ('verb="PATCH"', 'verb="APPLY"', 'verb="PUT"')
        return sum(int(float(count)) for labels, count in lines if any(v in labels for v in verbs))


async def roll_out(load: Load, found: dict[str, Any]) -> None:
    """All boards are on when their objects are applied: finalizers, models fetched, second sessions, all Ready."""
    count = len(load.fleet.ids)
    load.fleet.connect()
    await load.objects.create(load.fleet.ids)
    found["all_ready_s"] = round(await load.objects.until(lambda: len(load.objects.ready) == count, STORM_S), 2)
    found["settled_after_s"] = round(await load.truthful(), 2)


async def power_on(load: Load, found: dict[str, Any]) -> None:
    """All boards come on at once: until the bridge has heard each in its new session, until every object says so."""
    count, began = len(load.fleet.ids), time.monotonic()
    load.fleet.connect()
    await load.until_metric("boardlet_boards_connected", lambda n: n == count)
    found["all_answered_s"] = round(time.monotonic() - began, 2)
    await load.objects.until(lambda: len(load.objects.ready) == count, STORM_S)
    found["all_ready_s"] = round(time.monotonic() - began, 2)
    found["settled_after_s"] = round(await load.truthful(), 2)


async def steady(load: Load, found: dict[str, Any], seconds: float, edits: int) -> None:
    """Each board one change a minute, a tenth of them three a second; edits meanwhile, timed to their statuses."""
    count = len(load.fleet.ids)
    busy = max(1, count // BUSY_SHARE)
    load.fleet.change((0, busy, BUSY_HZ), (busy, count, A_MINUTE))
    await asyncio.sleep(2)
    before, began = load.fleet.counts(), time.monotonic()
    heard, window = await load.metric(REPORTS), Window(lambda: load.processes)
    writes = await load.api_writes()
    times = await edit_times(load, edits, began + seconds)
    await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
    took, after, used = time.monotonic() - began, load.fleet.counts(), window.end()
    heard = await load.metric(REPORTS) - heard
    found["reports_per_s"] = round((after["reports"] - before["reports"]) / took)
    found["bridge_cpu_us_per_report"] = round(1e6 * used["bridge"] / heard)
    found["bridge_cpu_share"] = round(used["bridge"] / took, 3)
    found["bridge_writes_per_s"] = round((await load.api_writes() - writes - len(times)) / took, 1)
    found["edit_to_status_ms"] = asdict(Times.of(times))
    found["edits"] = len(times)
    found["fleet_late_s"] = after["late_s"]
    found["wire_bytes"] = {"change_of_one": after["change_bytes"], "desired_of_five": after["desired_bytes"]}
    load.fleet.change()
    found["settled_after_s"] = round(await load.truthful(), 2)


async def edit_times(load: Load, edits: int, until: float) -> list[float]:
    """Edit boards one after the other; seconds from each PATCH until the watch shows the board's confirmation."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    for n in range(edits):
        if time.monotonic() > until and len(times) > 1:
            break
        name = random.choice(load.fleet.ids)
        began = loop.time()
        obj = await load.objects.patch(name, {"speed": n + 1, "led": n % 2 == 0})
        generation = obj["metadata"]["generation"]

        def confirmed(name: str = name, generation: int = generation) -> bool:
            there = load.objects.seen[name]
            return there["metadata"]["generation"] >= generation and is_ready(there)

        await load.objects.until(confirmed, 60)
        times.append(loop.time() - began)
        await asyncio.sleep(random.uniform(0, 0.05))
    return times


async def wills(load: Load, found: dict[str, Any]) -> None:
    """All boards lose their power at once: every object says so."""
    load.fleet.cut()
    found["all_known_s"] = round(await load.until_metric("boardlet_boards_connected", lambda n: n == 0), 2)
    gone = await load.objects.until(
        lambda: all(condition(obj, "Ready")[1] == "Gone" for obj in load.objects.seen.values()), STORM_S
    )
    found["all_gone_s"] = round(found["all_known_s"] + gone, 2)


async def bridge_restart(load: Load, found: dict[str, Any], settings: Mapping[str, object]) -> None:
    """kill -9 of the bridge and a new one: until all boards have answered it and every object is right."""
    load.site.bridge.kill()
    load.site.bridge = BridgeProcess(load.site.folder, {**load.site.settings, **settings})
    began, count = time.monotonic(), len(load.fleet.ids)
    load.site.bridge.process.start()
    await load.until_metric("boardlet_boards", lambda n: n == count)
    found["listed_s"] = round(time.monotonic() - began, 2)
    await asyncio.to_thread(load.site.bridge.wait_ready, STORM_S)
    found["ready_s"] = round(time.monotonic() - began, 2)
    await load.until_metric("boardlet_boards_connected", lambda n: n == count)
    found["all_answered_s"] = round(time.monotonic() - began, 2)
    await load.truthful()
    found["all_truthful_s"] = round(time.monotonic() - began, 2)
    found["cpu_bridge_s"] = round(cpu_s(load.site.bridge.process), 2)
    found["bridge_peak_mb"] = peak_mb(load.site.bridge.process)


async def broker_restart(load: Load, found: dict[str, Any]) -> None:
    """The broker is killed and started again: boards and bridge reconnect with back-off, every object is right."""
    count = len(load.fleet.ids)
    await asyncio.to_thread(load.site.broker.restart)
    began = time.monotonic()
    while load.fleet.counts()["up"] < count:  # noqa: ASYNC110 - another process' state has no event to offer
        await asyncio.sleep(0.2)
    found["boards_back_s"] = round(time.monotonic() - began, 2)
    await load.until_metric("boardlet_boards_connected", lambda n: n == count)
    found["all_answered_s"] = round(time.monotonic() - began, 2)
    await load.truthful()
    found["all_truthful_s"] = round(time.monotonic() - began, 2)


async def relist(load: Load, found: dict[str, Any]) -> None:
    """A bridge lists all objects once more soon after its start: what that costs, beside boards that change nothing."""
    load.site.bridge.kill()
    load.site.bridge.process.start()
    await load.until_metric("boardlet_boards_connected", lambda n: n == len(load.fleet.ids))
    before, writes = cpu_s(load.site.bridge.process), await load.api_writes()
    await asyncio.sleep(RELIST_S)
    found["idle_s"] = RELIST_S
    found["bridge_cpu_s"] = round(cpu_s(load.site.bridge.process) - before, 2)
    found["writes"] = await load.api_writes() - writes
    await load.truthful()


async def flood(load: Load, found: dict[str, Any], per_s: float, seconds: float) -> None:
    """So many reports a second for so long: what the bridge takes, what waits in between, what is lost, what it grows.

    After a steady state has written every object, growth is what messages leave behind, not a fleet's first values.
    """
    rss = rss_mb(load.site.bridge.process)
    before, heard_before = load.fleet.counts(), await load.metric(REPORTS)
    window, began = Window(lambda: load.processes), time.monotonic()
    load.fleet.flood(per_s)
    behind = []
    while time.monotonic() - began < seconds:
        await asyncio.sleep(1)
        sent, heard = load.fleet.counts()["reports"] - before["reports"], await load.metric(REPORTS) - heard_before
        behind.append(round(sent - heard))
    took, used = time.monotonic() - began, window.end()
    found["fleet_late_s"] = load.fleet.counts()["late_s"]
    load.fleet.flood(0)
    found["reports_per_s"], found["behind"] = round(heard / took), behind
    found["bridge_cpu_us_per_report"] = round(1e6 * used["bridge"] / heard)
    found["reports_per_bridge_cpu_s"] = round(heard / used["bridge"])
    found["bridge_cpu_share"] = round(used["bridge"] / took, 3)
    found["settled_after_s"] = round(await load.truthful(), 2)
    found["rss_mb_from_to"] = f"{rss} to {rss_mb(load.site.bridge.process)}"
    sent, heard = load.fleet.counts()["reports"] - before["reports"], await load.metric(REPORTS) - heard_before
    found["sent"], found["heard"] = sent, round(heard)
