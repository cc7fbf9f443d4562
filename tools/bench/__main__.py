"""`make bench`: measures in one run, prints a table, writes build/bench.json. Machines differ: compare ratios."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import broker as brokers
import controlplane
import paho.mqtt.client as paho
import yaml
from boardimage import image
from boardlet_cli.cluster import ROOT, Cluster
from boardlet_cli.site import Site
from boardlet_wire.topic import topic
from provision.missing import Missing
from provision.progress import for_stream
from rich.console import Console
from rich.table import Table
from virtualboard.build32 import interpreter32

from . import fleet, link, page, replicas, scrape
from .api import Api
from .latency import BLOCK, EDITS, Echo, Pins, Times, edits, floor

OUT = ROOT / "build/bench.json"
BOARD, BOARD_ID, BARE, HEAP_ID = "bench", "k7m2q9xa", "bare", "h32h32h3"
FLEET = 1000
MEASURE = """
import gc
from boardlet import app

@app.every(0.2)
def measure():
    gc.collect()
    with open("heap", "w") as f:
        f.write(str(gc.mem_alloc()))
"""


def main() -> int:
    """Measure everything; returns the exit code: 3 for what this machine lacks."""
    if sys.argv[1:2] == ["fleet"]:
        return fleet.main(sys.argv[2:])
    if sys.argv[1:2] == ["replicas"]:
        return replicas.main(sys.argv[2:])
    if sys.argv[1:2] == ["link"]:
        return link.main(sys.argv[2:])
    if sys.argv[1:2] == ["scrape"]:
        return scrape.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the JSON instead of a table")
    parser.add_argument("--page", action="store_true", help="put the figures into docs/benchmarks.md")
    parser.add_argument("--edits", type=int, default=EDITS, help=f"edits to time (default {EDITS})")
    parser.add_argument("--fleet", type=int, default=FLEET, help=f"Boards for the start-up figures (default {FLEET})")
    chosen = parser.parse_args()
    try:
        figures = measure(chosen.edits, chosen.fleet)
    except Missing as missing:
        print(f"bench: this machine lacks something: {missing}", file=sys.stderr)
        return 3
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    if chosen.page:
        page.write("bench", page.bench_table(figures))
    if chosen.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0


def measure(count: int, objects: int) -> dict[str, Any]:
    """All figures, as bench.json has them."""
    progress = for_stream(sys.stderr)
    figures: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "edits": count}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="boardlet-bench-")))
        programs = controlplane.find(progress)
        plane = stack.enter_context(controlplane.ControlPlane(folder / "plane", programs))
        cluster = Cluster(programs.kubectl, plane.kubectl_env(), namespace="default")
        cluster.install()
        # Two Boards: one that is served, and one in a namespace that no bridge serves, for the floor.
        cluster.run("create", "namespace", "bare")
        settings = {"namespaces": '["default"]', "mint_burst": 100_000}
        site = stack.enter_context(Site(folder / "site", cluster, brokers.find(progress), settings))
        for namespace in ("default", "bare"):
            cluster.run("apply", "-n", namespace, "-f", str(ROOT / "crds/samples/greenhouse.yaml"))
        figures["latency_ms"] = asyncio.run(latencies(site, plane.kubeconfig(), count))
        figures["bytes"] = wire_bytes(site)
        one = start_up(site)
        figures["agent"] = agent(site)
        figures["bridge"] = {"boards_1": one, f"boards_{objects}": start_up(site, objects - 2)}
    return figures


async def latencies(site: Site, kubeconfig: Path, count: int) -> dict[str, Any]:
    """Edit-to-pin, edit-to-status and the floor, which take turns."""
    loop = asyncio.get_running_loop()
    transport, pins = await loop.create_datagram_endpoint(Pins, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    board = site.add_board(BOARD_ID, pin_udp=port)
    board.start()
    create(site.cluster, BOARD, BOARD_ID, "default")
    create(site.cluster, BARE, "bare0000", "bare")
    site.cluster.run("wait", "--for=condition=Ready", f"board/{BOARD}", "--timeout=30s")
    to_pin: list[float] = []
    to_status: list[float] = []
    bare: list[float] = []
    echo = Echo(site)
    try:
        async with Api(kubeconfig, "default") as served, Api(kubeconfig, "bare") as unserved:
            await edits(served, pins, BOARD, BLOCK)  # warms both sides up
            status = site.cluster.get("board", BOARD)["status"]
            await floor(unserved, echo, BARE, status, BLOCK, 0)
            for done in range(0, count, BLOCK):
                pin, shown = await edits(served, pins, BOARD, BLOCK)
                to_pin += pin
                to_status += shown
                bare += await floor(unserved, echo, BARE, status, BLOCK, BLOCK + done)
    finally:
        echo.close()
        transport.close()
    found = {"floor": Times.of(bare), "edit_to_pin": Times.of(to_pin), "edit_to_status": Times.of(to_status)}
    ratio = round(found["edit_to_status"].p50 / found["floor"].p50, 2)
    return {**{name: asdict(times) for name, times in found.items()}, "edit_to_status_over_floor_p50": ratio}


def create(cluster: Cluster, name: str, board_id: str, namespace: str) -> None:
    """A greenhouse Board."""
    spec = {"boardID": board_id, "modelRef": {"name": "greenhouse"}}
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": name}, "spec": spec}
    cluster.run("create", "-n", namespace, "-f", "-", stdin=json.dumps(body))


def wire_bytes(site: Site) -> dict[str, int]:
    """Bytes of the MQTT packets that one edit of a boolean costs, payload and whole packet, both directions."""
    got: dict[str, bytes] = {}
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="bench-bytes")  # type: ignore[attr-defined]
    client.username_pw_set("boardlet-bridge", (site.folder / "bridge.password").read_text())
    ready: list[int] = []
    client.on_subscribe = lambda *_: ready.append(1)
    client.on_connect = lambda c, *_: c.subscribe([(topic(BOARD_ID, letter), 1) for letter in "dr"])
    client.on_message = lambda _c, _u, m: None if m.retain else got.update({m.topic[-1]: bytes(m.payload)})
    client.connect("127.0.0.1", site.broker.port)
    while not ready:
        client.loop(0.1)
    value = site.cluster.get("board", BOARD)["spec"]["properties"].get("led", False)
    patch = json.dumps({"spec": {"properties": {"led": not value}}})
    site.cluster.run("patch", "board", BOARD, "--type=merge", "-p", patch)
    while len(got) < 2:
        client.loop(0.1)
    client.disconnect()
    overhead = 2 + 2 + len(topic(BOARD_ID, "d")) + 2  # fixed header, topic, packet id (MQTT 3.1.1, section 3.3)
    return {
        "desired_payload": len(got["d"]),
        "reported_payload": len(got["r"]),
        "both_packets": len(got["d"]) + len(got["r"]) + 2 * overhead,
    }


def agent(site: Site) -> dict[str, Any]:
    """Size on flash, and resident heap of the frozen agent on a 32-bit interpreter, once Ready."""
    sizes = {path: len(content) for path, content in image().items() if path.endswith(".mpy")}
    figures: dict[str, Any] = {"mpy_bytes": sum(n for path, n in sizes.items() if not path.startswith("drivers/"))}
    try:
        program = interpreter32(for_stream(sys.stderr), frozen=True)
    except Missing as missing:
        return {**figures, "heap_bytes": None, "heap_missing": str(missing)}
    board = site.add_board(HEAP_ID, program=program)
    for folder in {path.split("/")[0] for path in sizes}:
        shutil.rmtree(board.flash / folder)  # what is frozen is what runs
    (board.flash / "app.py").write_text(MEASURE)
    board.start()
    create(site.cluster, "heap", HEAP_ID, "default")
    site.cluster.run("wait", "--for=condition=Ready", "board/heap", "--timeout=30s")
    heap = board.flash / "heap"
    heap.unlink(missing_ok=True)
    while not (heap.exists() and heap.read_text()):
        time.sleep(0.05)
    board.kill()
    return {**figures, "heap_bytes": int(heap.read_text()), "heap_includes": "interpreter and simulated machine module"}


def start_up(site: Site, more: int = 0) -> dict[str, float]:
    """With so many Boards more: seconds from the start of the process until it is ready, and its RSS then, in MB."""
    if more:
        spec = {"modelRef": {"name": "greenhouse"}}
        kind = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board"}
        boards = [
            {**kind, "metadata": {"name": f"f{n}"}, "spec": {**spec, "boardID": f"f{n:07d}"}} for n in range(more)
        ]
        site.cluster.run("create", "-f", "-", stdin=yaml.safe_dump_all(boards), timeout_s=300)
    site.bridge.stop()
    began = time.monotonic()
    site.bridge.start()
    took = time.monotonic() - began
    pid = site.bridge.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    rss_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"ready_s": round(took, 2), "rss_mb": round(rss_kb / 1024, 1)}


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    table = Table(title=f"Boardlet on {figures['machine']}, {figures['edits']} edits", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    latency = figures["latency_ms"]
    for name in ("floor", "edit_to_pin", "edit_to_status"):
        times = latency[name]
        table.add_row(f"{name.replace('_', '-')}, p50 / p99", f"{times['p50']:.1f} / {times['p99']:.1f} ms")
    table.add_row("edit-to-status over floor, p50", f"{latency['edit_to_status_over_floor_p50']:.2f}")
    for name, size in figures["bytes"].items():
        table.add_row(f"one edit on the wire: {name.replace('_', ' ')}", f"{size} B")
    for name, value in figures["agent"].items():
        table.add_row(f"agent: {name.replace('_', ' ')}", str(value))
    for name, values in figures["bridge"].items():
        title = f"bridge with {name.removeprefix('boards_')} Boards: ready after, memory"
        table.add_row(title, f"{values['ready_s']} s, {values['rss_mb']} MB")
    Console(width=max(90, Console().width)).print(table)
    print(f"also in {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
