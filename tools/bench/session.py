"""An admin's connection to the API server, and one watch beside it that lasts as long."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
from boardlet_bridge.kube.client import GROUP, severed
from boardlet_bridge.kube.connection import from_file


class Session(ABC):
    """One namespace of the cluster of a kubeconfig; an async context manager."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._described = from_file(kubeconfig)
        self._server = self._described.server
        self._path = f"{self._server}/apis/{GROUP}/namespaces/{namespace}"
        self._session: aiohttp.ClientSession
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        context = self._described.ssl_context()
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        started = asyncio.Event()
        self._task = asyncio.create_task(self._follow(started))
        await started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._session.close()

    @abstractmethod
    async def _follow(self, started: asyncio.Event) -> None:
        """Take what the watch tells, until cancelled; sets `started` when it hears everything from then on."""

    @asynccontextmanager
    async def _events(self) -> AsyncIterator[AsyncIterable[bytes]]:
        # A watch of the Boards, an event a line.
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(f"{self._path}/boards?watch=true", timeout=timeout) as answer:
            answer.raise_for_status()
            with severed(answer):
                yield answer.content

    async def _send(self, method: str, path: str, body: Mapping[str, Any], content: str) -> bytes:
        url, headers = f"{self._path}/{path}", {"Content-Type": content}
        async with self._session.request(method, url, data=json.dumps(body), headers=headers) as answer:
            answer.raise_for_status()
            return await answer.read()
