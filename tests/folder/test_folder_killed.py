"""A bridge that serves a folder is killed at any moment while its files are edited: generations tell the truth."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from folderworld import BOARD, SAMPLES
from test_folder_store import KEY, served

KILLS = 3
SEED = 4


async def serve(root: Path) -> None:
    """Serve a folder and print each Board that is told, writing statuses as fast as it goes."""
    async with served(root) as (store, told):

        def say() -> None:
            asyncio.get_running_loop().call_soon(print_board)

        def print_board() -> None:
            obj = told.objects.get(("Board", "g1"))
            if obj is not None:
                said = [obj["metadata"]["uid"], obj["metadata"]["generation"], obj["spec"]["properties"]["n"]]
                print(json.dumps(said), flush=True)
                told.statuses["g1"] = {"conditions": [], "reported": {"n": said[2]}}
                store.mark(KEY, True)

        told.before = say
        print_board()
        await asyncio.Event().wait()


def test_no_generation_is_given_twice(tmp_path: Path) -> None:
    """Over kill -9 at random moments no generation stands for two specs, none falls, and the last edit is served."""
    chance = random.Random(SEED)
    root = tmp_path / "objects"
    root.mkdir()
    (root / "greenhouse.yaml").write_text((SAMPLES / "greenhouse.yaml").read_text())
    edits, log = 0, tmp_path / "told"

    def edit() -> None:
        nonlocal edits
        edits += 1
        (root / "g1.yaml").write_text(BOARD.replace("led: false", f"n: {edits}"))

    edit()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # what a test finds, its child finds too
    for round_ in range(KILLS + 1):
        with log.open("a") as out:
            size, deadline = log.stat().st_size, time.monotonic() + 30  # before it can have told anything
            child = subprocess.Popen([sys.executable, __file__, str(root)], stdout=out, env=env)
        try:
            while log.stat().st_size == size:
                assert child.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            if round_ == KILLS:
                while told(log)[-1][2] != edits:
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
            else:
                end = time.monotonic() + chance.uniform(0.0, 0.1)
                while time.monotonic() < end:
                    edit()
                    time.sleep(0.001)
                size = log.stat().st_size
                edit()
                while log.stat().st_size == size:  # and at once when it has told something
                    assert time.monotonic() < deadline
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        edit() if round_ < KILLS else None
    said = told(log)
    assert len({uid for uid, _, _ in said}) == 1
    specs: dict[int, int] = {}
    assert all(specs.setdefault(generation, n) == n for _, generation, n in said)
    assert [g for _, g, _ in said] == sorted(g for _, g, _ in said)
    assert len(specs) > KILLS
    record = yaml.safe_load((root / ".status/default/boards/g1.status").read_text())
    assert record["spec"]["properties"] == {"n": edits}


def told(log: Path) -> list[list[Any]]:
    """Each uid, generation and value that was told; a line that was cut by a kill is none."""
    text = log.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


if __name__ == "__main__":
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(serve(Path(sys.argv[1])))
