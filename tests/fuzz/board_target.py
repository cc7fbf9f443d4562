"""The board's code on MicroPython, by rounds: inputs go in by a file, what each did comes back as a line.

A new interpreter for every round, so that a crash is seen as one; within a round the heap in use must not grow.
"""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cbor2
from boardimage import simple
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.model import compile_model
from boardlet_wire.keys import board_key
from boardlet_wire.topic import topic
from codec_target import REFUSED, bodies, inside, text
from fuzzing import INPUT_S, Broken, Outcome
from mutation import Pool, kept
from virtualboard import interpreter

FIRMWARE: Final = Path(__file__).parents[2] / "firmware"
WORKER: Final = Path(__file__).parent / "board_worker.py"
ROUND: Final = 20_000
ROUND_S: Final = 240.0
HEAP_GROWTH: Final = 2048  # bytes; a fragment of a string or of the store's names may be held at the end
BOARD_ID: Final = "k7m2q9xa"
EPOCH: Final = b"epoch--1"
ROOT: Final = bytes(range(32))
KEYS: Final = KeyRing(ROOT, bytes(16)).board(BOARD_ID)
MODEL: Final = compile_model(
    "fuzzed",
    {
        "properties": [
            {
                "name": "led",
                "index": 0,
                "type": "Boolean",
                "access": "ReadWrite",
                "driver": {"type": "GpioOut", "pins": [2]},
            },
            {"name": "target", "index": 1, "type": "Number", "access": "ReadWrite", "minimum": 5, "maximum": 35},
            {"name": "label", "index": 3, "type": "String", "access": "ReadWrite", "maxLength": 8},
            {
                "name": "levels",
                "index": 4,
                "type": "Array",
                "access": "ReadWrite",
                "maxItems": 4,
                "items": {"type": "Integer"},
            },
            {
                "name": "light",
                "index": 5,
                "type": "Number",
                "access": "ReadOnly",
                "driver": {"type": "Adc", "pins": [34]},
            },
        ]
    },
)


def worker(kind: str, inputs: list[bytes], folder: Path) -> tuple[list[str], int]:
    """What each input did, and by how many bytes the heap grew; raises Broken."""
    (folder / "pins").mkdir(exist_ok=True)
    (folder / "inputs").write_bytes(b"".join(struct.pack(">H", len(raw)) + raw for raw in inputs))
    env = {
        "MICROPYPATH": f"{FIRMWARE}:{FIRMWARE / 'boards/unix'}:{simple().parents[1]}:.frozen",
        "BOARDLET_PINS": str(folder / "pins"),
    }
    command = [str(interpreter()), "-X", "heapsize=1M", str(WORKER), kind, "inputs"]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=ROUND_S, check=False)
    except subprocess.TimeoutExpired as expired:
        count = (expired.stdout or b"").count(b"\n=")
        raise Broken(f"{kind}: hung on {inputs[min(count, len(inputs) - 1)].hex()}") from expired
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode:
        broken = next((line[1:] for line in lines if line.startswith("!")), "(nothing)")
        raise Broken(f"{kind}: {broken}  # {done.stdout.decode(errors='replace')[-600:]}{done.stderr.decode()[-1500:]}")
    slowest, first, last = map(int, lines[-1][1:].split())
    if slowest > INPUT_S * 1000:
        raise Broken(f"{kind}: an input took {slowest} ms")
    if last - first > HEAP_GROWTH:
        raise Broken(f"{kind}: the heap grew from {first} to {last} bytes over {len(inputs)} inputs")
    return [line[1:] for line in lines if line.startswith("=")], last - first


def rounds(name: str, kind: str, make: Callable[[Pool], bytes], pool: Pool, count: int, folder: Path,
           judge: Callable[[bytes, str], None]) -> Outcome:  # fmt: skip
    """`count` inputs in rounds; what made something new happen in one is a seed of the next."""
    began, growth = time.monotonic(), 0
    for at in range(0, count, ROUND):
        inputs = [make(pool) for _ in range(min(ROUND, count - at))]
        said, grown = worker(kind, inputs, folder)
        assert len(said) == len(inputs), f"{len(said)} answers to {len(inputs)} inputs"
        growth = max(growth, grown)
        for raw, words in zip(inputs, said, strict=True):
            judge(raw, words)
    return Outcome(name, count, time.monotonic() - began, len(pool.seen), growth, pool.found)


def codec(count: int, seed: int, folder: Path) -> Outcome:
    """The board's decoder on MicroPython gives cbor2's value, or refuses what is not of the subset; raises Broken."""
    pool = Pool([*bodies(), *kept("codec")], seed)
    first = iter(list(pool.seeds))

    def judge(raw: bytes, said: str) -> None:
        right = text(cbor2.loads(raw)) if inside(raw) else REFUSED
        # MicroPython takes overlong forms and surrogates for text (PROTOCOL.md section 3 allows it).
        if said != right and not (right == REFUSED and inside(raw, strict=False)):
            raise Broken(f"codec on MicroPython: {raw.hex()}  # {said:.80} instead of {right:.80}")
        pool.learn(raw, said if said == REFUSED else "".join(c for c in said if c in "{}[],:tbfTFN"))

    return rounds("codec-mpy", "codec", lambda p: next(first, None) or p.next(), pool, count, folder, judge)


def publish(letter: str, payload: bytes, number: int = 7) -> bytes:
    """A QoS 1 PUBLISH to the board."""
    name = topic(BOARD_ID, letter).encode()
    return packet(0x32, struct.pack(">H", len(name)) + name + struct.pack(">H", number) + payload)


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT packet."""
    head, size = bytearray([kind]), len(body)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + body


def sealed(letter: str, body: bytes) -> bytes:
    """A body as the bridge would send it."""
    return publish(letter, KEYS.close(letter, body, EPOCH))


def desired(revision: int, values: dict[int, Any]) -> bytes:
    return cbor2.dumps({0: b"\1\2\3\4\5\6", 1: revision, 2: 1, 3: cbor2.dumps({-1: MODEL.digest, **values})})


def agent(count: int, seed: int, folder: Path) -> Outcome:
    """Link and Twin under mutated packets and under mutated bodies with a right seal; raises Broken."""
    files = [cbor2.dumps({0: MODEL.digest, 1: 0, 2: len(MODEL.encoded), 3: MODEL.encoded})]
    states = [{0: True, 1: 20.5, 3: "calm", 4: [1, 2]}, {-3: {0: 30, 1: 2, 2: 0}}, {-3: {2: 60}, 0: 1, 9: 1}]
    seeds = {
        "d": [desired(n + 2, state) for n, state in enumerate(states)],
        "c": [
            *(cbor2.dumps({0: b"12345678", 1: n}) for n in (0, 1)),
            cbor2.dumps({0: b"12345678", 1: 2, 2: EPOCH, 5: [2, bytes(32)]}),
        ],
        "f": [*files, cbor2.dumps({0: MODEL.digest, 4: 1})],
    }
    setup = {
        "id": BOARD_ID,
        "key": board_key(ROOT, BOARD_ID, 1).hex(),
        "epoch": EPOCH.hex(),
        "model": MODEL.digest.hex(),
        "before": [sealed("d", desired(1, {0: False})).hex(), sealed("f", files[0]).hex()],
    }
    (folder / "setup.json").write_text(json.dumps(setup))
    packets = [sealed(letter, body) for letter, some in seeds.items() for body in some]
    packets += [b"\x20\x02\x00\x00", b"\x90\x05\x00\x01\x01\x01\x01", b"\x40\x02\x00\x01", b"\xd0\x00"]
    raw = Pool([*packets, b"".join(packets)], seed)
    pools = {letter: Pool(some, seed) for letter, some in seeds.items()}
    states_pool = Pool([cbor2.dumps({-1: MODEL.digest, **state}) for state in states], seed)
    origin: dict[bytes, tuple[Pool, bytes]] = {}
    first = iter([*kept("agent")])

    def make(pool: Pool) -> bytes:
        if (old := next(first, None)) is not None:
            return old
        if pool.rng.random() < 0.4:
            data = pool.next()
            origin[data] = pool, data
            return data
        letter = pool.rng.choice("dddcf")
        if letter == "d" and pool.rng.random() < 0.6:  # the state's own bytes, in a message that is right
            body, own = states_pool.next(), states_pool
            whole = cbor2.dumps({0: b"\1\2\3\4\5\6", 1: pool.rng.randrange(1, 60), 2: 1, 3: body})
        else:
            own = pools[letter]
            body = whole = own.next()
        data = sealed(letter, whole)
        origin[data] = own, body
        return data

    def judge(data: bytes, said: str) -> None:
        if data in origin:
            own, seed_bytes = origin.pop(data)
            if own.learn(seed_bytes, said, data) and own is not raw:
                raw.seen.add(said)
                raw.found.append(data)

    return rounds("agent-mpy", "agent", make, raw, count, folder, judge)
