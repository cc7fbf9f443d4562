"""The agent fits: size on flash, heap on a 32-bit interpreter as on a chip, no growth, and what the codec costs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from boardimage import image
from bridge_side import Peer
from provision.missing import Missing
from provision.progress import for_stream
from virtualboard import VirtualBoard, interpreter
from virtualboard.build32 import interpreter32

FIRMWARE = Path(__file__).parents[2] / "firmware"
AGENT_BYTES = 20 * 1024  # umqtt, wire and agent, as .mpy
CLAIM_BYTES = 5 * 1024  # what a board has besides until it is enrolled
CORE_BYTES = 12 * 1024  # of these: link, wire, twin
HEAP_BYTES = 16 * 1024  # resident once connected
MESSAGES = int(os.environ.get("BOARDLET_GROWTH_MESSAGES", "1000"))
# Beside the agent only what measures: it collects, and writes how much is allocated.
MEASURE = """
import gc
from boardlet import app

@app.every(0.2)
def measure():
    gc.collect()
    with open("heap", "w") as f:
        f.write(str(gc.mem_alloc()))
"""


@pytest.fixture(scope="module")
def program32() -> Path:
    """The 32-bit interpreter with the agent frozen in, as a firmware build of one's own has it."""
    try:
        return interpreter32(for_stream(), frozen=True)
    except Missing as missing:
        pytest.skip(str(missing))


def test_agent_fits_its_flash() -> None:
    """umqtt, wire and agent are at most 20 KB of .mpy, link, wire and twin at most 12 KB of these."""
    sizes = {path: len(content) for path, content in image(compiled=True).items() if path.endswith(".mpy")}
    agent = sum(size for path, size in sizes.items() if not path.startswith(("drivers/", "rotation/")))
    core = sum(
        n for path, n in sizes.items() if path.startswith("boardlet_wire/") or path[9:] in ("link.mpy", "twin.mpy")
    )
    print(f"agent {agent} B, of these link, wire and twin {core} B")
    assert agent <= AGENT_BYTES
    assert core <= CORE_BYTES


def test_enrolment_is_no_part_of_the_agent() -> None:
    """What a board needs to be enrolled is at most 5 KB of files of its own, which no other board gets."""
    more = {path: content for path, content in image(claim=True).items() if path not in image()}
    print(f"enrolment {sum(map(len, more.values()))} B")
    assert sorted(more) == ["enrol/__init__.mpy", "enrol/claim.mpy"]
    assert sum(map(len, more.values())) <= CLAIM_BYTES


def test_heap_and_growth(program32: Path, make_board: Callable[..., VirtualBoard], peer: Peer) -> None:
    """Connected, the frozen agent holds at most 16 KB of heap on 32 bits; after many more messages not a byte more."""
    board = make_board(program32, proven_s=0)
    for folder in ("boardlet", "boardlet_wire", "drivers", "rotation", "umqtt"):
        shutil.rmtree(board.flash / folder)  # what is frozen is what runs
    (board.flash / "app.py").write_text(MEASURE)
    board.start()
    peer.here()
    peer.desire({0: False})
    peer.here(2)
    peer.full()
    bare = _bare_heap(program32)
    first = _settled(board, peer)
    for _ in range(MESSAGES // 10):
        for _ in range(10):
            revision = peer.desire({0: peer.revision % 2 == 0})
        peer.applied(revision)
    after = _settled(board, peer)
    print(f"resident {first - bare} B (interpreter {bare} B); growth over {MESSAGES} messages {after - first} B")
    assert first - bare <= HEAP_BYTES
    assert after - first <= 0


def test_codec_costs(tmp_path: Path) -> None:
    """The cost of one report of five properties, encoded, decoded and sealed, is measured and printed."""
    (tmp_path / "t.py").write_text(CODEC)
    env = {"MICROPYPATH": f"{FIRMWARE}:.frozen"}
    done = subprocess.run(
        [interpreter(), "t.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    print(done.stdout)
    size, encode_us, decode_us, seal_us = map(float, re.findall(r"[\d.]+", done.stdout))
    assert size < 40
    assert min(encode_us, decode_us, seal_us) > 0


CODEC = """
import time
from boardlet_wire import cbor, seal
report = {0: True, 1: 21.5, 2: 20.75, 3: "ok", 4: 1234, -1: 77}
body = cbor.dumps(report)
key = seal.half_key(bytes(32), seal.UP)
def cost(f, n=2000):
    t = time.ticks_us()
    for _ in range(n):
        f()
    return time.ticks_diff(time.ticks_us(), t) / n
print(len(body), cost(lambda: cbor.dumps(report)), cost(lambda: cbor.loads(body)),
      cost(lambda: seal.tag(key, "b/00/k7m2q9xa/r", bytes(8), body, 8)))
"""


def _bare_heap(program: Path) -> int:
    # With the simulated `machine` loaded: on a chip that module is no heap, because it is in C.
    code = "import gc, machine; gc.collect(); print(gc.mem_alloc())"
    env = {"MICROPYPATH": str(FIRMWARE / "boards/unix")}
    command = [program, "-X", "heapsize=256K", "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=True)
    return int(done.stdout)


def _settled(board: VirtualBoard, peer: Peer) -> int:
    # The measurement of a moment with nothing under way: two equal ones in a row, each newer than the call.
    path = board.flash / "heap"
    seen: list[int] = []
    path.unlink(missing_ok=True)

    def settled() -> bool:
        if path.exists() and (text := path.read_text()):
            path.unlink()
            seen.append(int(text))
        return len(seen) >= 3 and seen[-1] == seen[-2]

    peer.until(settled)
    return seen[-1]
