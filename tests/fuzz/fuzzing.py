"""Runs a target over many inputs: a deadline for each, the growth of the heap, and the input that broke it in hex."""

from __future__ import annotations

import gc
import signal
import time
import tracemalloc
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mutation import Pool

INPUT_S: Final = 2.0  # the slowest input of any target takes some milliseconds; the machines of tests are busy
SAMPLE: Final = 2000  # inputs between two looks at the heap
GROWTH_BYTES: Final = 48 * 1024  # caches of the interpreter and of paho fill during the first thousands


class Target(Protocol):
    """What is fuzzed in this process."""

    name: str

    def seeds(self) -> list[bytes]: ...
    def take(self, data: bytes) -> Hashable:
        """One input; returns what happened, raises what must not."""
        ...

    def renew(self) -> None:
        """Forget all inputs so far."""
        ...


class Broken(AssertionError):
    """An input did what no input may; the message has it in hex, for tests/fuzz/corpus."""


class Hung(Exception):
    """An input took longer than INPUT_S."""


@dataclass(slots=True)
class Outcome:
    """One run of one target."""

    target: str
    inputs: int
    seconds: float
    kinds: int
    """How many different things happened."""
    growth_bytes: int
    found: Sequence[bytes] = field(default=(), repr=False)
    """Inputs that made something new happen."""

    def __str__(self) -> str:
        rate = self.inputs / self.seconds if self.seconds else 0
        return (
            f"{self.target:<12} {self.inputs:>9,} inputs {self.seconds:>7.1f} s {rate:>8,.0f}/s "
            f"{self.kinds:>6,} kinds {self.growth_bytes:>+8,} B"
        )


def run(target: Target, count: int, seed: int, first: list[bytes]) -> Outcome:
    """`count` inputs, those of `first` before all others; raises Broken."""
    pool = Pool([*target.seeds(), *first], seed)
    began = time.monotonic()
    for data in [*target.seeds(), *first]:
        pool.learn(data, one(target, data))
    for _ in range(count - 2 * SAMPLE):
        data = pool.next()
        pool.learn(data, one(target, data))
    grown = growth(target, pool, min(SAMPLE, count), judged=count >= 3 * SAMPLE)
    return Outcome(target.name, count, time.monotonic() - began, len(pool.seen), grown, pool.found)


def one(target: Target, data: bytes) -> Hashable:
    """What one input did; raises Broken."""
    try:
        with deadline():
            return target.take(data)
    except Exception as error:
        raise Broken(f"{target.name}: {data.hex()}  # {error!r}") from error


def growth(target: Target, pool: Pool, sample: int, judged: bool) -> int:
    """Bytes by which the heap grew over the second of two samples; raises Broken where it grows without end.

    Of a run that is too short to be `judged` caches fill to its end, which is no growth.
    """
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(2):
            for _ in range(sample):
                one(target, pool.next())
            target.renew()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    if judged and sizes[1] - sizes[0] > GROWTH_BYTES:
        raise Broken(f"{target.name}: the heap grew by {sizes[1] - sizes[0]} bytes over {sample} inputs")
    return sizes[1] - sizes[0]


@contextmanager
def deadline() -> Iterator[None]:
    """Raises Hung in the block once INPUT_S have passed."""

    def ring(*_: Any) -> None:
        raise Hung(f"no end after {INPUT_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, INPUT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
