"""`python -m bench link`: bytes between a bridge on site and a control plane far away; a table, build/link.json.

Each part is measured alone by a link that loses nothing: TCP, TLS and HTTP with it, as IP packets. A day's bytes are
computed from the parts, for a traffic that is stated, with the settings as they come and with those for a thin link.
In the end the link is as bad as they get, and the same edits are made by it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import broker as brokers
import controlplane
from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.cluster import ROOT, Cluster
from boardlet_cli.site import Site
from fleet.control import Fleet
from provision.missing import Missing
from provision.progress import for_stream
from rich.console import Console
from rich.table import Table

from . import page
from .objects import Objects
from .radio import Radio
from .uplink import Uplink

OUT: Final = ROOT / "build/link.json"
SEED: Final = 64
QUIET_S: Final = 2.0
WITHIN_S: Final = 60.0
BAD_WITHIN_S: Final = 240.0
SECOND_LISTING_S: Final = 13.0  # after its start a bridge lists once more, 10 s later
WRITTEN: Final = 'boardlet_status_writes_total{outcome="written"}'
LEASE_S: Final = 15
THIN: Final[dict[str, object]] = {"lease_s": 300, "resync_s": 86400, "status_interval_s": 900}
USUAL: Final[dict[str, object]] = {"lease_s": LEASE_S, "resync_s": 600, "status_interval_s": 5}
BAD: Final = {"bits_per_s": 64_000, "latency_s": 1.0, "loss": 0.2}
ATOMIC: Final = "              x-kubernetes-map-type: atomic\n"
HOUR_S, UP_S, DAY_S = 3600, 8 * 3600, 24 * 3600


@dataclass(frozen=True, slots=True)
class Bytes:
    """What passed by the link, towards the cluster and from it."""

    out: float
    back: float

    def less(self, other: Bytes, times: float = 1.0) -> Bytes:
        return Bytes(max(0.0, self.out - times * other.out), max(0.0, self.back - times * other.back))

    def times(self, n: float) -> Bytes:
        return Bytes(n * self.out, n * self.back)

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.out + other.out, self.back + other.back)

    @property
    def figures(self) -> dict[str, int]:
        return {"out": round(self.out), "back": round(self.back)}


NOTHING: Final = Bytes(0, 0)


def main(argv: Sequence[str]) -> int:
    """Measure; returns the exit code: 3 for what this machine lacks."""
    parser = argparse.ArgumentParser(prog="python -m bench link", description=__doc__)
    parser.add_argument("--boards", type=int, default=20, help="simulated boards (default 20)")
    parser.add_argument(
        "--idle-s", type=float, default=60, help="how long to look on while nothing happens (default 60)"
    )
    parser.add_argument("--brief", action="store_true", help="one status write before and after a change, as JSON")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of a table")
    parser.add_argument("--page", action="store_true", help="put the figures into docs/benchmarks.md")
    chosen = parser.parse_args(argv)
    try:
        figures = measure(chosen.boards, chosen.idle_s, chosen.brief)
    except Missing as missing:
        print(f"bench: this machine lacks something: {missing}", file=sys.stderr)
        return 3
    if chosen.brief:
        print(json.dumps(figures, indent=2))
        return 0
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    if chosen.page:
        page.write("link", page.link_table(figures))
    if chosen.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0


def measure(boards: int, idle_s: float, brief: bool = False) -> dict[str, Any]:
    """All figures, as build/link.json has them."""
    progress = for_stream(sys.stderr)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="boardlet-link-")))
        programs = controlplane.find(progress)
        plane = stack.enter_context(controlplane.ControlPlane(folder / "plane", programs))
        radio = stack.enter_context(Radio(SEED))
        uplink = stack.enter_context(Uplink(radio, plane.port))
        cluster = Cluster(programs.kubectl, plane.kubectl_env(), namespace="default")
        cluster.install()
        cluster.run("apply", "-f", "-", stdin=field_by_field())
        site = Site(folder / "site", cluster, brokers.find(progress), {"namespaces": '["default"]'})
        straight = cluster.bridge_kubeconfig(folder / "straight.kubeconfig")
        uplink.kubeconfig(straight, folder / "site/bridge.kubeconfig")
        fleet = Fleet(site, boards)
        stack.callback(site.stop)
        site.broker.start()
        stack.enter_context(fleet)
        scenes = Scenes(site, fleet, uplink, idle_s, cluster.install, brief)
        parts, bad = asyncio.run(scenes.play(plane.kubeconfig()))
    figures = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "boards": boards, "idle_s": idle_s}
    if brief:
        return {**figures, "parts": {name: part.figures for name, part in parts.items()}}
    told = {name: part.figures for name, part in parts.items()}
    return {
        **figures,
        "parts": told,
        "bad": bad,
        "days": days(parts, boards),
        "settings": {"usual": USUAL, "thin": THIN},
    }


def field_by_field() -> str:
    """The Boards' kind without what makes a status one value to the API server: what that saves is measured too."""
    text = (ROOT / "crds/boards.yaml").read_text()
    assert text.count(ATOMIC) == 1, "the kind has changed"
    return text.replace(ATOMIC, "")


class Scenes:
    """What passes while one thing happens, one after the other."""

    def __init__(
        self, site: Site, fleet: Fleet, uplink: Uplink, idle_s: float, install: Callable[[], None], brief: bool
    ) -> None:
        """`install` brings the kinds as they are; until then they are `field_by_field`. `brief`: that alone."""
        self._install, self._brief = install, brief
        self._site, self._fleet, self._uplink, self._radio = site, fleet, uplink, uplink.radio
        self._idle_s = idle_s
        self._bridge: BridgeProcess = site.bridge
        self._objects: Objects

    async def play(self, kubeconfig: Path) -> tuple[dict[str, Bytes], dict[str, Any]]:
        """All parts, and what became of the edits by the bad link."""
        count = len(self._fleet.ids)
        found: dict[str, Bytes] = {}
        async with Objects(kubeconfig, "default") as objects:
            self._objects = objects
            await objects.create(self._fleet.ids[:1])
            await self._restart(lease_s=0)
            self._fleet.connect()
            await self._ready()
            await asyncio.sleep(SECOND_LISTING_S)
            await self._writes(self._touch)  # opens a connection
            found["status write, field by field, as it was"] = await self._writes(self._touch)
            await asyncio.to_thread(self._install)
            await self._writes(self._touch)
            if self._brief:
                return {**found, "status write, as it is": await self._writes(self._touch)}, {}
            one = await self._restart(lease_s=0)
            await objects.add(self._fleet.ids[1:])
            await self._ready()
            all_ = await self._restart(lease_s=0, status_interval_s=0.2)
            found["start, with one Board"] = one
            found["listing, of one Board"] = all_.less(one).times(1 / (count - 1))
            await asyncio.sleep(SECOND_LISTING_S)
            found["idle for an hour, without a Lease"] = idle = await self._idle()
            found["status write, by a new connection"] = await self._writes(self._touch)
            found["status write, by an open one"] = await self._writes(self._fleet.once)
            found["edit, status write included"] = await self._edits()
            found["link back after an outage, with one Board"] = await self._back(found["listing, of one Board"])
            await self._restart(lease_s=LEASE_S)
            await asyncio.sleep(SECOND_LISTING_S)
            renewals = HOUR_S / (LEASE_S / 3)
            found["renewal of the Lease"] = (await self._idle()).less(idle).times(1 / renewals)
            await self._restart(**{**THIN, "status_interval_s": 5})
            return found, await self._bad()

    async def _restart(self, **settings: object) -> Bytes:
        await asyncio.to_thread(self._bridge.kill)
        self._bridge = BridgeProcess(self._site.folder, {**self._site.settings, **settings})
        self._site.bridge = self._bridge
        return await self._during(lambda: asyncio.to_thread(self._bridge.start))

    async def _ready(self, within_s: float = WITHIN_S) -> None:
        count = len(self._objects.seen)
        await self._objects.until(lambda: len(self._objects.ready) == count, within_s)
        await self._quiet()

    async def _quiet(self) -> None:
        before, since = self._now(), time.monotonic()
        while time.monotonic() - since < QUIET_S:
            await asyncio.sleep(0.1)
            if (now := self._now()) != before:
                before, since = now, time.monotonic()

    def _now(self) -> Bytes:
        return Bytes(self._radio.out_bytes, self._radio.in_bytes)

    async def _during(self, do: Callable[[], Any]) -> Bytes:
        before = self._now()
        if (done := do()) is not None:
            await done
        await self._quiet()
        return self._now().less(before)

    async def _idle(self) -> Bytes:
        before = self._now()
        await asyncio.sleep(self._idle_s)
        return self._now().less(before).times(HOUR_S / self._idle_s)

    async def _written(self) -> float:
        return await asyncio.to_thread(self._bridge.metric, WRITTEN)

    async def _touch(self) -> None:
        # One sensor of one board changes, once.
        before = await self._written()
        self._fleet.change((0, 1, 2.0))
        while await self._written() == before:  # noqa: ASYNC110 - the bridge is another process
            await asyncio.sleep(0.02)
        self._fleet.change()

    async def _writes(self, do: Callable[[], Any]) -> Bytes:
        before = await self._written()
        spent = await self._during(do)
        return spent.times(1 / (await self._written() - before))

    async def _edits(self) -> Bytes:
        spent = await self._during(lambda: self._edit(22))
        return spent.times(1 / len(self._fleet.ids))

    async def _edit(self, target: float, within_s: float = WITHIN_S) -> None:
        for name in self._fleet.ids:
            await self._objects.patch(name, {"target": target})
        state = await asyncio.to_thread(self._fleet.state)
        await self._objects.until(lambda: len(self._objects.ready) == len(state), within_s)

    async def _back(self, of_one: Bytes) -> Bytes:
        spent = await self._during(lambda: self._uplink.forget())
        return spent.less(of_one, len(self._fleet.ids) - 1)

    async def _bad(self) -> dict[str, Any]:
        await self._quiet()
        for name, value in BAD.items():
            setattr(self._radio, name, value)
        before, connections, began = self._now(), self._uplink.connections, time.monotonic()
        await self._edit(23, BAD_WITHIN_S)
        took_s, spent = time.monotonic() - began, self._now().less(before)
        self._radio.bits_per_s = self._radio.latency_s = self._radio.loss = 0.0
        each = spent.times(1 / len(self._fleet.ids)).figures
        return {
            "all_back_s": round(took_s, 1),
            "of_an_edit": each,
            "connections": self._uplink.connections - connections,
        }


TRAFFIC: Final = "a value that changes every minute, two edits, one end and return of its connection"
CHANGES_S: Final = 60
EDITS: Final = 2
TURNS: Final = 2  # status writes of one end and one return


def days(parts: Mapping[str, Bytes], measured: int) -> dict[str, Any]:
    """Bytes of a day in which the link is up for eight hours in one piece, computed from the parts; by site's size."""
    found: dict[str, Any] = {"traffic": TRAFFIC, "up_hours": UP_S / HOUR_S}
    for name, settings in (("usual", USUAL), ("thin", THIN)):
        for boards in sorted({1, measured, 100, 1000}):
            total = _day(parts, settings, boards)
            rate = 8 * max(total.out, total.back) / UP_S
            each = total.times(1 / boards).figures
            found[f"{name}, {boards}"] = {"board": each, "site": total.figures, "mean_bits_per_s": round(rate)}
    return found


def _day(parts: Mapping[str, Bytes], settings: Mapping[str, Any], boards: int) -> Bytes:
    writes = UP_S / max(CHANGES_S, settings["status_interval_s"]) + TURNS
    listings = UP_S // settings["resync_s"]
    renewals = UP_S / (settings["lease_s"] / 3)
    write = "status write, by an open one" if settings["lease_s"] / 3 < 60 else "status write, by a new connection"
    a_board = (
        parts[write].times(writes)
        + parts["edit, status write included"].times(EDITS)
        + parts["listing, of one Board"].times(listings + 1)
    )
    a_site = (
        parts["idle for an hour, without a Lease"].times(UP_S / HOUR_S)
        + parts["renewal of the Lease"].times(renewals)
        + parts["link back after an outage, with one Board"]
    )
    return a_board.times(boards) + a_site


def show(figures: dict[str, Any]) -> None:
    """The figures as tables."""
    title = f"{figures['boards']} boards; {figures['machine']}"
    for head, rows in page.link_rows(figures):
        table = Table(*head, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        Console(width=max(110, Console().width)).print(table)
    print(f"also in {OUT.relative_to(ROOT)}")
