"""`python -m bench scrape`: what a scrape of /metrics costs a bridge whose boards' values are metrics, in process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml
from boardlet_bridge.core.board import FINALIZER
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.state import Birth, Limits, Link
from boardlet_bridge.core.store import Key
from boardlet_bridge.runtime.engine import Engine
from boardlet_bridge.runtime.metrics import Metrics
from boardlet_cli.cluster import ROOT

SCRAPES: Final = 10
LOOK_S: Final = 0.0005  # how often the loop looks at the clock while a scrape is under way


class Nowhere:
    """The world of an engine that nobody listens to."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None: ...
    def mark(self, key: Key, urgent: bool) -> None: ...
    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None: ...
    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...
    def refused(self, cause: str) -> None: ...
    def unknown_board(self, board_id: str) -> None: ...
    def warned(self, reason: str) -> None: ...
    def doubt(self) -> None: ...
    def admit(self, board_id: str, number: int) -> None: ...

    def now(self) -> float:
        return time.monotonic()

    def sure(self) -> bool:
        return True


def main(argv: list[str]) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench scrape", description=__doc__)
    parser.add_argument("--boards", type=int, default=10_000, help="greenhouses that answer (default 10000)")
    count = parser.parse_args(argv).boards
    engine = answering(count)
    gc.collect()
    gc.freeze()  # as the bridge does
    figures = {"with_values": asyncio.run(scrapes(engine, count)), "without": asyncio.run(scrapes(engine, 0))}
    print(json.dumps({"boards": count, **figures}, indent=2))
    return 0


def answering(count: int) -> Engine:
    """An engine with so many greenhouses, each of which has reported its light."""
    made = Engine(KeyRing(bytes(32), bytes(16)), Limits(), Nowhere())
    model = yaml.safe_load((ROOT / "crds/samples/greenhouse.yaml").read_text())
    model["metadata"] |= {"namespace": "default", "generation": 1, "resourceVersion": "1"}
    made.on_model("ADDED", model)
    for n in range(count):
        uid = f"{n:08x}-2222-4333-8444-555555555555"
        meta = {"namespace": "default", "name": f"greenhouse-{n}", "uid": uid, "finalizers": [FINALIZER]}
        spec = {"boardID": f"b{n:07d}", "modelRef": {"name": "greenhouse"}}
        made.on_board("ADDED", {"metadata": {**meta, "generation": 1, "resourceVersion": "1"}, "spec": spec})
    for entry in made.registry.entries.values():
        board = entry.board
        assert board.model is not None, "it was added above"
        board.link, board.birth = Link.LIVE, Birth({}, 1024, board.model.digest, b"", False)
        board.reported = {"led": False, "light": 420.5, "door": True}
    return made


async def scrapes(engine: Engine, max_series: int) -> dict[str, Any]:
    """Milliseconds of a scrape's part on the loop, of its part beside it, and of the loop's longest wait in that."""
    metrics = Metrics()
    metrics.watch(
        lambda: engine.census.served,
        lambda: engine.census.connected,
        lambda: 0,
        lambda: 0,
        engine.census.received,
        engine.census.dropped,
        engine.census.conditions,
        engine.census.root_keys,
        dict,
        lambda: 1,
        lambda: 0,
        lambda: 0,
        engine.census.measured,
        max_series,
    )
    reading: list[float] = []
    writing: list[float] = []
    waits: list[float] = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        scrape = asyncio.create_task(metrics.text())
        await asyncio.sleep(0)  # it runs until it hands over to its thread
        read = last = time.perf_counter()
        longest = 0.0
        while not scrape.done():
            await asyncio.sleep(LOOK_S)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        reading.append(read - began)
        writing.append(last - read)
        waits.append(longest)
    return {
        "bytes": len(await metrics.text()),
        "on_the_loop_ms": _median_most(reading),
        "on_a_thread_ms": _median_most(writing),
        "longest_wait_meanwhile_ms": _median_most(waits),
    }


def _median_most(times: list[float]) -> dict[str, float]:
    return {"p50": round(1000 * sorted(times)[len(times) // 2], 1), "max": round(1000 * max(times), 1)}
