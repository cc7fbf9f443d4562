"""The API server as a stopwatch needs it: PATCH, and one watch whose events wake whoever waits for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boardlet_bridge.kube.client import GROUP

from .session import Session

WAIT_S = 30.0


class Api(Session):
    """A namespace's Boards, written one by one and waited for."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        super().__init__(kubeconfig, namespace)
        self._waiting: list[tuple[Callable[[dict[str, Any]], bool], asyncio.Future[float]]] = []

    async def patch(self, name: str, body: dict[str, Any]) -> None:
        """Merge-patch a Board."""
        await self._send("PATCH", f"boards/{name}", body, "application/merge-patch+json")

    async def apply_status(self, name: str, status: dict[str, Any]) -> None:
        """Write a Board's whole status by server-side apply."""
        body = {"apiVersion": GROUP, "kind": "Board", "metadata": {"name": name}, "status": status}
        path = f"boards/{name}/status?fieldManager=bench&force=true"
        await self._send("PATCH", path, body, "application/apply-patch+yaml")

    def seen(self, true: Callable[[dict[str, Any]], bool]) -> asyncio.Future[float]:
        """Done with the loop's time when the watch shows an object of which this is true."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((true, future))
        return future

    async def _follow(self, started: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        async with self._events() as lines:
            started.set()
            async for line in lines:
                obj = json.loads(line)["object"]
                for entry in [entry for entry in self._waiting if entry[0](obj)]:
                    self._waiting.remove(entry)
                    entry[1].set_result(loop.time())
