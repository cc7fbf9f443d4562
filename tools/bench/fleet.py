"""`python -m bench fleet`: a fleet under load, one site; prints a table and writes build/fleet.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import broker as brokers
import controlplane
from boardlet_cli.cluster import ROOT, Cluster
from boardlet_cli.site import Site
from fleet.control import Fleet
from provision.missing import Missing
from provision.progress import for_stream
from rich.console import Console
from rich.table import Table

from . import load, page
from .objects import Objects

OUT: Final = ROOT / "build/fleet.json"
STORMS: Final = ("broker", "wills", "return")
PHASES: Final = ("steady", "flood", "relist", *STORMS)
STORM_PER_S: Final = 200  # as much as the API server takes: how long a storm lasts is else the budget's alone


def main(argv: Sequence[str]) -> int:
    """Measure what is asked for; returns the exit code: 3 for what this machine lacks."""
    parser = argparse.ArgumentParser(prog="python -m bench fleet", description=__doc__)
    parser.add_argument("--boards", type=int, default=10_000, help="simulated boards (default 10,000)")
    parser.add_argument("--seconds", type=float, default=30, help="length of steady state and flood (default 30)")
    parser.add_argument("--edits", type=int, default=300, help="edits to time in the steady state (default 300)")
    parser.add_argument(
        "--writes-per-s", type=float, default=50, help="the bridge's budget (default 50, the bridge's own)"
    )
    parser.add_argument("--flood-per-s", type=float, default=10_000, help="flood: reports a second (default 10,000)")
    parser.add_argument("--phases", default=",".join(PHASES), help=f"of {', '.join(PHASES)} (default all)")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of a table")
    parser.add_argument("--page", action="store_true", help="put the figures into docs/benchmarks.md")
    parser.add_argument("--keep", type=Path, help="keep the site's folder, with all logs, here")
    chosen = parser.parse_args(argv)
    try:
        figures = measure(chosen)
    except Missing as missing:
        print(f"bench: this machine lacks something: {missing}", file=sys.stderr)
        return 3
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    if chosen.page:
        page.write("fleet", page.fleet_table(figures))
        page.CHART.write_text(page.chart(page.goals(figures)))
    if chosen.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """All figures, phase by phase."""
    progress = for_stream(sys.stderr)
    with ExitStack() as stack:
        temporary = stack.enter_context(TemporaryDirectory(prefix="boardlet-fleet-"))
        folder = Path(chosen.keep or temporary)
        programs = controlplane.find(progress)
        plane = stack.enter_context(controlplane.ControlPlane(folder / "plane", programs))
        cluster = Cluster(programs.kubectl, plane.kubectl_env(), namespace="default")
        cluster.install()
        # The roll-out may write more, as may storms; the budget that is asked for holds for what is between.
        settings = {"namespaces": '["default"]', "status_writes_per_s": STORM_PER_S, "log_level": "warning"}
        site = Site(folder / "site", cluster, brokers.find(progress), settings)
        fleet = Fleet(site, chosen.boards)
        stack.callback(site.stop)
        site.start()
        stack.enter_context(fleet)
        figures = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "boards": chosen.boards,
            "budget_writes_per_s": chosen.writes_per_s,
            "storm_writes_per_s": STORM_PER_S,
        }
        return {**figures, "phases": asyncio.run(_run(plane, site, fleet, chosen))}


async def _run(
    plane: controlplane.ControlPlane, site: Site, fleet: Fleet, chosen: argparse.Namespace
) -> dict[str, Any]:
    phases: dict[str, Callable[[dict[str, Any]], Any]] = {
        "steady": lambda found: load.steady(one, found, chosen.seconds, chosen.edits),
        "relist": lambda found: load.relist(one, found),
        "broker": lambda found: load.broker_restart(one, found),
        "wills": lambda found: load.wills(one, found),
        "return": lambda found: load.power_on(one, found),
        "flood": lambda found: load.flood(one, found, chosen.flood_per_s, chosen.seconds),
    }
    async with Objects(plane.kubeconfig(), "default") as objects:
        one = load.Load(plane, site, fleet, objects)
        await one.phase("roll-out", lambda found: load.roll_out(one, found))
        budget, more = ({"status_writes_per_s": per_s} for per_s in (chosen.writes_per_s, STORM_PER_S))
        await one.phase("bridge restart", lambda found: load.bridge_restart(one, found, budget))
        stormy = False
        for name in chosen.phases.split(","):
            if not stormy and (stormy := name in STORMS):
                await load.bridge_restart(one, {}, more)
            await one.phase(name, phases[name])
        return one.figures


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    title = f"{figures['boards']} boards on {figures['machine']}, {figures['budget_writes_per_s']:g} writes/s"
    table = Table(title=title, title_justify="left")
    for column in ("phase", "figure", "value"):
        table.add_column(column)
    for phase, found in figures["phases"].items():
        for name, value in found.items():
            words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(phase, name.replace("_", " "), words)
            phase = ""
    Console(width=max(110, Console().width)).print(table)
    print(f"also in {OUT.relative_to(ROOT)}")
