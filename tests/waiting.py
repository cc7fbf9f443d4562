"""Waiting for what another part does, which has no event to offer: looked at again and again, within a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

LOOK_S: Final = 0.002
LOOK_AGAIN_S: Final = 0.1  # where a look is a program of its own
WAIT_S: Final = 30.0


async def until(true: Callable[[], object], wait_s: float = WAIT_S) -> None:
    """Return once it is so; raises TimeoutError."""
    async with asyncio.timeout(wait_s):
        while not true():
            await asyncio.sleep(LOOK_S)


def hold_on(true: Callable[[], object], wait_s: float = WAIT_S) -> None:
    """The same without a loop: return once it is so; raises TimeoutError."""
    deadline = time.monotonic() + wait_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {wait_s} s")
        time.sleep(LOOK_AGAIN_S)
