"""The API server as a stopwatch needs it: PATCH, and one watch whose events wake whoever waits for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from boardlet_bridge.kube.client import severed
from boardlet_bridge.kube.connection import from_file

GROUP = "/apis/boardlet.dev/v1alpha1"
WAIT_S = 30.0


class Api:
    """An admin's connection to the cluster of a kubeconfig; an async context manager."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._described = from_file(kubeconfig)
        self._path = f"{self._described.server}{GROUP}/namespaces/{namespace}"
        self._waiting: list[tuple[Callable[[dict[str, Any]], bool], asyncio.Future[float]]] = []
        self._session: aiohttp.ClientSession
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Api:
        context = self._described.ssl_context()
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        started = asyncio.Event()
        self._task = asyncio.create_task(self._watch(started))
        await started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._session.close()

    async def patch(self, name: str, body: dict[str, Any]) -> None:
        """Merge-patch a Board."""
        await self._send(f"{self._path}/boards/{name}", body, "application/merge-patch+json")

    async def apply_status(self, name: str, status: dict[str, Any]) -> None:
        """Write a Board's whole status by server-side apply."""
        kind = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": name}}
        url = f"{self._path}/boards/{name}/status?fieldManager=bench&force=true"
        await self._send(url, {**kind, "status": status}, "application/apply-patch+yaml")

    async def _send(self, url: str, body: dict[str, Any], content: str) -> None:
        async with self._session.patch(url, data=json.dumps(body), headers={"Content-Type": content}) as answer:
            answer.raise_for_status()
            await answer.read()

    def seen(self, true: Callable[[dict[str, Any]], bool]) -> asyncio.Future[float]:
        """Done with the loop's time when the watch shows an object of which this is true."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((true, future))
        return future

    async def _watch(self, started: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(f"{self._path}/boards?watch=true", timeout=timeout) as answer:
            started.set()
            with severed(answer):
                async for line in answer.content:
                    obj = json.loads(line)["object"]
                    for entry in [entry for entry in self._waiting if entry[0](obj)]:
                        self._waiting.remove(entry)
                        entry[1].set_result(loop.time())
