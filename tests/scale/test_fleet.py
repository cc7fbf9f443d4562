"""A small fleet under load; gated are counts that noise cannot move. A large one: docs/benchmarks.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import controlplane
import pytest
from bench.load import REPORTS, Load, roll_out
from bench.objects import NAMES, Objects
from bench.usage import cpu_s
from boardlet_cli.site import Site
from fleet.control import Fleet

WRITES_PER_S, BURST, INTERVAL_S = 60, 60, 2.0
STORM_S = 6.0  # three intervals of the values
SETTINGS = {
    "status_writes_per_s": WRITES_PER_S,
    "status_burst": BURST,
    "status_interval_s": INTERVAL_S,
    "log_level": "warning",
}

Play = Callable[[int, Callable[[Load], Awaitable[None]]], None]


@pytest.fixture
def play(plane: controlplane.ControlPlane, make_site: Callable[..., Site]) -> Play:
    """Has a fleet of so many boards, all Ready, and plays a scene with it."""
    site = make_site(SETTINGS)

    def play(count: int, scene: Callable[[Load], Awaitable[None]]) -> None:
        async def run(fleet: Fleet) -> None:
            async with Objects(plane.kubeconfig(), str(site.cluster.namespace)) as objects:
                load = Load(plane, site, fleet, objects)
                await roll_out(load, {})
                await scene(load)
                await objects.delete()

        with Fleet(site, count) as fleet:
            asyncio.run(run(fleet))

    return play


async def refused(load: Load) -> list[str]:
    text = await asyncio.to_thread(load.site.bridge.http, "/metrics")
    return [line for line in text.splitlines() if line.startswith("boardlet_messages_refused_total")]


async def storm(load: Load, seconds: float, *ranges: tuple[int, int, float]) -> tuple[int, float]:
    """Changes at these rates; statuses written until all is settled, and the seconds from first to last."""
    await asyncio.sleep(BURST / WRITES_PER_S)  # the burst is there again, so that the bound below is exact
    writes, began = await load.api_writes(), time.monotonic()
    load.fleet.change(*ranges)
    await asyncio.sleep(seconds)
    load.fleet.change()
    await load.truthful()  # property by property
    return await load.api_writes() - writes, time.monotonic() - began


def test_a_fleet_under_load_is_shown_as_it_is(play: Play) -> None:
    """200 boards, a tenth of them at 3 Hz: all Ready; no report is dropped; API writes stay within the budget; and in
    the end no object differs from its board in any property."""

    async def scene(load: Load) -> None:
        assert len(load.objects.ready) == 200
        writes, took = await storm(load, STORM_S, (0, 20, 3.0), (20, 200, 0.1))
        assert writes <= BURST + WRITES_PER_S * took
        sent, heard = load.fleet.counts()["reports"], await load.metric(REPORTS)
        assert sent == heard > STORM_S * (20 * 3.0 + 180 * 0.1) * 0.8
        assert await refused(load) == []

    play(200, scene)


def test_kubeedge_3761(play: Play, record_property: Callable[[str, object], None]) -> None:
    """30 devices with three updates a second, which drove KubeEdge's API server past 1,300 % of CPU (kubeedge#3761):
    each board costs one write an interval, and the last values are there."""

    async def scene(load: Load) -> None:
        cpu = cpu_s(load.plane.apiserver)
        writes, took = await storm(load, STORM_S, (0, 30, 3.0))
        share = (cpu_s(load.plane.apiserver) - cpu) / took
        record_property("apiserver_cpu_share", round(share, 3))
        print(f"API server: {100 * share:.0f} % of a core, {writes} writes in {took:.0f} s")
        assert writes <= 30 * (1 + took / INTERVAL_S)

    play(30, scene)


def test_the_first_report_of_each_property_is_not_lost(play: Play) -> None:
    """What a board says once only, at its start or as a property's first change, is in its status."""

    async def scene(load: Load) -> None:
        assert all(set(o["status"]["reported"]) == set(NAMES.values()) for o in load.objects.seen.values())
        before = {name: dict(obj["status"]["reported"]) for name, obj in load.objects.seen.items()}
        load.fleet.once()  # every sensor changes for the first time
        await load.truthful()
        for name, obj in load.objects.seen.items():
            after = obj["status"]["reported"]
            assert all(after[p] != before[name][p] for p in ("temp", "door", "count"))

    play(10, scene)


def test_an_edit_while_the_edge_is_down_arrives_after_it(play: Play) -> None:
    """A desired value that is set while broker and bridge are away reaches every board once both are back."""

    async def scene(load: Load) -> None:
        site: Site = load.site
        await asyncio.to_thread(site.bridge.kill)
        await asyncio.to_thread(site.broker.kill)
        for name in load.fleet.ids:
            await load.objects.patch(name, {"target": 30, "mode": "eco"})
        await asyncio.to_thread(site.broker.start)
        await asyncio.to_thread(site.bridge.start)
        await load.until_metric("boardlet_boards_connected", lambda n: n == len(load.fleet.ids))
        await load.truthful()
        for _, generation, values in load.fleet.state().values():
            assert (generation, values["1"], values["3"]) == (2, 30.0, "eco")

    play(10, scene)


def test_a_machine_that_lacks_open_files_is_told(tmp_path: Path) -> None:
    """A fleet that is larger than the limit of open files says so, and what to do."""
    from fleet.__main__ import allow_files

    assert "ulimit -n" in allow_files(10**9)
