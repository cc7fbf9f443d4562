"""The process: `python -m fleet --help`. Takes orders, one JSON a line, on a Unix socket; ends with whoever started it.

Orders: connect, cut, change (ranges of boards and their rates), once, flood (a rate of all together), counts, state.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final

from boardlet_wire.keys import board_key

from .board import Board
from .link import Counts, Link
from .plan import Plan

MISSING: Final = 3
SPARE_FILES: Final = 64
PACE_S: Final = 0.01
SWEEP_S: Final = 1.0


def board_id(number: int) -> str:
    """The id of the fleet's board with this number."""
    return f"f{number:07d}"


class Process:
    """All boards of this process."""

    def __init__(self, root: bytes, port: int, count: int) -> None:
        models: dict[bytes, bytes] = {}
        self.counts = Counts()
        self.links = [
            Link(Board(name, board_key(root, name, 1), models), port, self.counts)
            for name in map(board_id, range(count))
        ]
        self.plan = Plan(self.links)
        self._connecting: asyncio.Task[None] | None = None

    async def connect(self, first: int, last: int, per_s: float) -> None:
        """Power on boards first..last-1, so many a second."""
        began, loop = time.monotonic(), asyncio.get_running_loop()
        dialling = []
        for n in range(first, last):
            while (time.monotonic() - began) * per_s < n - first:  # noqa: ASYNC110 - it waits for time itself
                await asyncio.sleep(PACE_S)
            dialling.append(loop.create_task(self.links[n].connect()))
        await asyncio.gather(*dialling)

    async def order(self, order: dict[str, Any]) -> Any:
        """Carry out one order and answer it."""
        match order.pop("do"):
            case "connect":
                self._connecting = asyncio.create_task(self.connect(**order))
            case "cut":
                for link in self.links:
                    link.cut()
            case "change":
                self.plan.change([(p["first"], p["last"], p["per_s"]) for p in order["ranges"]])
            case "flood":
                self.plan.flood(order["per_s"])
            case "once":
                self.plan.once()
            case "counts":
                up = sum(link.up for link in self.links)
                return {"up": up, "late_s": round(self.plan.late_s, 3), **vars(self.counts)}
            case "state":
                return {
                    link.board.id: [link.up, link.board.applied and link.board.applied[3], link.board.values]
                    for link in self.links
                }
        return None

    async def serve(self, path: Path) -> None:
        """Take orders until the process is ended."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(json.dumps(await self.order(json.loads(line))).encode() + b"\n")
                await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(talk, path)
        async with server, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.plan.run())
            tasks.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for link in self.links:
                link.sweep(now)


def allow_files(count: int) -> str:
    """Raise this process's limit of open files to what so many boards need; says what is missing, "" if nothing."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + SPARE_FILES:
        return f"{count} boards need {count + SPARE_FILES} open files, the limit is {hard}: ulimit -n {count + 1000}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + SPARE_FILES, hard))
    return ""


def main() -> int:
    """Run until ended; exit code 3 for what this machine lacks."""
    parser = argparse.ArgumentParser(prog="python -m fleet", description=__doc__)
    parser.add_argument("--root-key", type=Path, required=True, help="file with the site's root key")
    parser.add_argument("--port", type=int, required=True, help="the broker's port on loopback")
    parser.add_argument("--count", type=int, required=True, help="how many boards")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket on which orders are taken")
    chosen = parser.parse_args()
    missing = allow_files(chosen.count)
    if missing:
        print(f"fleet: {missing}", file=sys.stderr)
        return MISSING

    async def run() -> None:
        process = Process(bytes.fromhex(chosen.root_key.read_text().strip()), chosen.port, chosen.count)
        gc.collect()
        gc.freeze()  # ten thousand boards live as long as the process
        await process.serve(chosen.socket)

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
