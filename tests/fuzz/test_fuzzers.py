"""The fuzzers, each for a moment with a fixed seed: no crash, no hang, no growth; `make fuzz` runs them for long."""

from __future__ import annotations

from pathlib import Path

import board_target
import pytest
from codec_target import Codec
from core_target import Core
from fuzz import fuzz
from fuzzing import Broken, Hung, one
from mutation import Pool

# Together about fifteen seconds on a busy machine.
COUNTS = {"codec": 20_000, "codec-mpy": 20_000, "core": 6_000, "agent-mpy": 12_000, "session": 4_000}


@pytest.mark.parametrize("name", COUNTS)
def test_no_input_breaks(name: str, tmp_path: Path) -> None:
    """What was kept and what a seed makes of it: every input ends, in time, and leaves nothing behind."""
    outcome = fuzz(name, COUNTS[name], 1, tmp_path)
    print(outcome)
    assert outcome.inputs == COUNTS[name]
    assert outcome.kinds > 30, "it reaches more than the first check"


def test_what_a_healthy_board_says_is_not_refused() -> None:
    """Some of what the core's fuzzer begins with is taken on each letter, so that mutations reach what is behind."""
    core = Core()
    said = [core.take(data) for data in core.seeds()]
    assert {letter for letter, refused, *_ in said if not refused} >= set("srwd")


def test_a_seed_repeats_its_inputs() -> None:
    """The same seed makes the same inputs, so that what it found can be found again."""
    runs = []
    for _ in range(2):
        pool = Pool([b"abc", b"\xa1\x00\x01"], 5)
        runs.append([pool.next() for _ in range(100)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 80


def test_a_target_that_fails_is_told_with_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that raises another error than it may, or never ends, breaks the run with the input in hex."""

    def broken(data: bytes) -> object:
        raise KeyError(data)

    monkeypatch.setattr("codec_target.cbor.loads", broken)
    with pytest.raises(Broken, match="a10001"):
        one(Codec(), b"\xa1\x00\x01")

    def endless(data: bytes) -> object:
        while True:
            pass

    monkeypatch.setattr("fuzzing.INPUT_S", 0.05)
    monkeypatch.setattr("codec_target.cbor.loads", endless)
    with pytest.raises(Broken, match="a10001") as hung:
        one(Codec(), b"\xa1\x00\x01")
    assert isinstance(hung.value.__cause__, Hung)


def test_a_board_that_crashes_is_told_with_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that would reboot a board breaks the run with the input in hex."""
    worker = board_target.WORKER.read_text().replace("return text(cbor.loads(raw))", "return {}[text(cbor.loads(raw))]")
    (tmp_path / "worker.py").write_text(worker)
    monkeypatch.setattr(board_target, "WORKER", tmp_path / "worker.py")
    with pytest.raises(Broken, match="a10001"):
        board_target.worker("codec", [b"\xff", b"\xa1\x00\x01"], tmp_path)
