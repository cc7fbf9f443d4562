"""The wire's codec and seals: golden vectors on both interpreters, and agreement with cbor2 on whatever else."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import cbor2
import pytest
from boardlet_bridge.core.codec import Fields, MalformedError, encode, single
from boardlet_wire import cbor, seal
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
VECTORS = ROOT / "firmware/boardlet_wire/vectors.json"
MICROPYTHON = Path(sys.executable).with_name("micropython")
INTERPRETERS = {"cpython": Path(sys.executable), "micropython": MICROPYTHON}

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
scalars = st.booleans() | st.integers(-(2**31), 2**32 - 1) | singles | st.text(max_size=40) | st.binary(max_size=40)
maps = st.dictionaries(st.integers(-300, 300), scalars | st.lists(scalars, max_size=4), max_size=12)


def run(interpreter: str, *args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    path = str(ROOT / "firmware")
    env = {"MICROPYPATH": f"{path}:.frozen", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(INTERPRETERS[interpreter]), *map(str, args)]
    return subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_the_vectors_are_those_that_independent_code_makes() -> None:
    """vectors.json is what cbor2 and the standard library's hmac say, byte for byte."""
    spec = importlib.util.spec_from_file_location("make_vectors", HERE / "make_vectors.py")
    assert spec
    assert spec.loader
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert VECTORS.read_text() == maker.text()


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_vectors(interpreter: str) -> None:
    """Both interpreters pass every golden vector of this protocol version."""
    done = run(interpreter, HERE / "vectors_check.py", VECTORS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 120


def test_the_check_can_fail(tmp_path: Path) -> None:
    """One flipped bit in one vector fails the check: the vectors are really looked at."""
    broken = json.loads(VECTORS.read_text())
    broken["messages"][1]["payload"] = broken["messages"][1]["payload"][:-1] + "0"
    (tmp_path / "v.json").write_text(json.dumps(broken))
    done = run("cpython", HERE / "vectors_check.py", tmp_path / "v.json")
    assert done.returncode == 1
    assert "birth" in done.stdout


@given(maps)
def test_what_a_board_writes_the_bridge_reads(fields: dict[int, object]) -> None:
    """Every body that the board's encoder makes is read by the bridge's decoder, with the same values."""
    assert same(Fields.decode(cbor.dumps(fields)).map, fields)


@given(maps)
def test_what_the_bridge_writes_a_board_reads(fields: dict[int, object]) -> None:
    """Every body that the bridge makes is read by the board's decoder, with the same values."""
    assert same(cbor.loads(encode(fields)), fields)


@given(st.binary(max_size=80))
def test_garbage_is_refused_by_both(garbage: bytes) -> None:
    """Any bytes are either decoded or refused with the one error that callers contain, on both sides."""
    board = bridge = None
    with contextlib.suppress(ValueError):
        board = cbor.loads(garbage)
    with contextlib.suppress(MalformedError):
        bridge = Fields.decode(garbage).map
    if isinstance(board, dict) and bridge is not None:
        assert same(board, bridge)


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=8), st.data())
def test_a_seal_holds_every_bit(body: bytes, context: bytes, data: st.DataObject) -> None:
    """A payload opens under its own key, topic and context, and under nothing that differs in one bit."""
    key = seal.half_key(bytes(32), seal.UP)
    payload = bytearray(body + seal.tag(key, "b/00/a/r", context, body, seal.UP_TAG))
    opened = seal.verify(key, "b/00/a/r", context, payload, seal.UP_TAG)
    assert opened is not None
    assert bytes(opened) == body
    assert seal.verify(key, "b/00/a/s", context, payload, seal.UP_TAG) is None
    at = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[at // 8] ^= 1 << at % 8
    assert seal.verify(key, "b/00/a/r", context, payload, seal.UP_TAG) is None


def test_micropython_agrees_with_cbor2(tmp_path: Path) -> None:
    """MicroPython re-encodes 400 random bodies to bytes that cbor2 reads alike, and survives 400 mutilated ones."""
    rng = random.Random(20)
    bodies = [encode(random_map(rng)) for _ in range(400)]
    mutilated = [mutilate(rng, body) for body in bodies]
    (tmp_path / "echo.py").write_text(ECHO)
    lines = "\n".join(body.hex() for body in bodies + mutilated)
    done = run("micropython", tmp_path / "echo.py", stdin=lines + "\n")
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split("\n")[: len(bodies + mutilated)]
    for body, answer in zip(bodies, answers, strict=False):
        assert same(cbor2.loads(bytes.fromhex(answer)), cbor2.loads(body))
    assert len(answers) == 800
    for body, answer in zip(mutilated, answers[400:], strict=True):
        if answer != "refused":
            assert same(cbor2.loads(bytes.fromhex(answer)), cbor2.loads(body))


ECHO = """
import sys
from binascii import hexlify, unhexlify
from boardlet_wire import cbor
for line in sys.stdin:
    try:
        print(hexlify(cbor.dumps(cbor.loads(unhexlify(line.strip())))).decode())
    except ValueError:
        print("refused")
"""


def random_map(rng: random.Random) -> dict[int, object]:
    def scalar() -> object:
        return rng.choice([
            rng.random() < 0.5, rng.randrange(-(2**31), 2**32), single(rng.uniform(-1e6, 1e6)), rng.randrange(300) / 4,
            "ü" * rng.randrange(20), rng.randbytes(rng.randrange(30)), [1, rng.randrange(99), "x"],
        ])  # fmt: skip

    return {rng.randrange(-40, 300): scalar() for _ in range(rng.randrange(10))}


def mutilate(rng: random.Random, body: bytes) -> bytes:
    broken = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        broken[rng.randrange(len(broken))] = rng.randrange(256)
    return bytes(broken[: rng.randrange(1, len(broken) + 1)])


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b
