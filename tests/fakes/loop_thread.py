"""A server of a test: an asyncio loop in a thread of its own, for as long as a with-block lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final, Self

CALL_S: Final = 20.0


class LoopThread:
    """Subclasses serve in `_serve`: call `_ready.set()` when they listen, and return soon after `_stop` is set."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def _serve(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(CALL_S):
            raise RuntimeError(f"the {self._thread.name} did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CALL_S)

    def _call(self, work: Callable[[], Any]) -> Any:
        async def called() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(CALL_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())
