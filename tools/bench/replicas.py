"""`python -m bench replicas`: bridges that share a fleet come, stop, are killed, paused and upgraded; prints tables.

A moment counts until every board has answered the replica that serves it then. Under load edits go on all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import broker as brokers
import controlplane
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from fleet.control import Fleet
from provision.missing import Missing
from provision.progress import for_stream
from rich.console import Console
from rich.table import Table

from .scenes import Scenes

ROLL_OUT_PER_S: Final = 200  # writes of all bridges, as much as the API server takes


def main(argv: Sequence[str]) -> int:
    """Measure; returns the exit code: 3 for what this machine lacks."""
    parser = argparse.ArgumentParser(prog="python -m bench replicas", description=__doc__)
    parser.add_argument("--boards", type=int, default=2000, help="simulated boards (default 2,000)")
    parser.add_argument("--replicas", type=int, default=3, help="bridges (default 3)")
    parser.add_argument("--edits-per-s", type=float, default=5, help="edits under load (default 5 a second)")
    parser.add_argument("--seconds", type=float, default=30, help="length of the load between moments (default 30)")
    parser.add_argument("--busy-hz", type=float, default=1, help="changes a second of one board in ten (default 1)")
    parser.add_argument("--writes-per-s", type=float, default=50, help="budget of all, under load (default 50)")
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
            settings = {
                "namespaces": '["default"]',
                "status_writes_per_s": ROLL_OUT_PER_S / chosen.replicas,
                "log_level": "warning",
                "lease_s": chosen.lease_s,
            }
            site = Site(folder / "site", cluster, brokers.find(progress), settings)
            fleet = Fleet(site, chosen.boards)
            stack.callback(site.stop)
            site.broker.start()
            cluster.bridge_kubeconfig(folder / "site/bridge.kubeconfig")
            stack.enter_context(fleet)
            scenes = Scenes(plane, site, fleet, chosen)
            stack.callback(scenes.kill)
            asyncio.run(scenes.play(plane.kubeconfig()))
    except Missing as missing:
        print(f"bench: this machine lacks something: {missing}", file=sys.stderr)
        return 3
    title = f"{chosen.boards} boards, lease {chosen.lease_s} s; {platform.machine()}, {os.cpu_count()} cores"
    for rows in (scenes.moments, scenes.costs, scenes.loaded):
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1:]:
            table.add_row(*row)
        Console(width=110).print(table)
    return 0
