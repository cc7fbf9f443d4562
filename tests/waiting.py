"""Waiting for what another part does, which has no event to offer: looked at again and again, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LOOK_S: Final = 0.002
WAIT_S: Final = 30.0


async def until(true: Callable[[], object], wait_s: float = WAIT_S) -> None:
    """Return once it is so; raises TimeoutError."""
    async with asyncio.timeout(wait_s):
        while not true():
            await asyncio.sleep(LOOK_S)
