"""Edits of a fleet while something happens to its bridges: so many a second, each timed from PATCH to status."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from types import TracebackType
from typing import Final

from .latency import Times
from .objects import Objects, is_ready

CONFIRMED_S: Final = 120.0


class Edits:
    """Edits boards at random, none twice at a time, until the block is left, which raises TimeoutError for an edit that
    has no status after `CONFIRMED_S` seconds."""

    def __init__(self, objects: Objects, per_s: float) -> None:
        self._objects, self._gap_s = objects, 1 / per_s
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._seconds: list[float] = []

    def said(self) -> str:
        """How many, and how long they took."""
        times = Times.of(self._seconds)
        return f"{len(self._seconds)}: p50 {times.p50:.0f} ms, p99 {times.p99:.0f} ms, most {max(self._seconds):.1f} s"

    async def __aenter__(self) -> Edits:
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await asyncio.gather(*self._under_way.values(), return_exceptions=error is not None)

    async def _go_on(self) -> None:
        for n in itertools.count(1):
            name = random.choice([name for name in self._objects.seen if name not in self._under_way])
            self._under_way[name] = asyncio.create_task(self._edit(name, n))
            await asyncio.sleep(self._gap_s)

    async def _edit(self, name: str, n: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        obj = await self._objects.patch(name, {"speed": n, "led": n % 2 == 0})
        generation = obj["metadata"]["generation"]

        def confirmed() -> bool:
            there = self._objects.seen[name]
            return there["metadata"]["generation"] >= generation and is_ready(there)

        try:
            await self._objects.until(confirmed, CONFIRMED_S)
        except TimeoutError as error:
            obj = self._objects.seen[name]
            raise TimeoutError(f"{error}; {name} of generation {generation} says {obj.get('status')}") from error
        self._seconds.append(loop.time() - began)
        del self._under_way[name]
