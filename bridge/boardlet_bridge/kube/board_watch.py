"""Follows Boards from where a listing ended: each change is told once, on the main loop, without a second listing.

Boards are the one kind with thousands of objects, each written by the bridge itself; kopf, which watches the models,
takes some 0.4 ms for each event of theirs, echoes included, and lists them all once more (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from boardlet_bridge.kube.client import ApiError, Gone, KubeClient, Unavailable
from boardlet_bridge.kube.handlers import BOARDS, WatchSink
from boardlet_bridge.kube.resync import Resync

FIRST_PAUSE_S: Final = 0.1  # short, as edits wait for it
LONGEST_PAUSE_S: Final = 5.0
MAX_LINE: Final = 16 * 1024 * 1024  # an object is at most 1.5 MiB in etcd; what has no end is no watch


class BoardWatch:
    """One watch a namespace; who says that the API server is away is `resync`, which is asked for a new beginning."""

    def __init__(self, client: KubeClient, resync: Resync, namespaces: Sequence[str], sink: WatchSink) -> None:
        self._client, self._resync, self._sink = client, resync, sink
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self._again = asyncio.Event()

    async def run(self) -> None:
        """Follow from where the last listing ended, for as long as it runs."""
        since = self._resync.versions
        while True:
            self._again.clear()
            again = asyncio.create_task(self._again.wait())
            follows = [asyncio.create_task(self._follow(n, since.get(n, ""))) for n in self._namespaces]
            try:
                done, _ = await asyncio.wait({again, *follows}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # only `again` ends by itself: anything else is a bug of ours, to be seen
            finally:
                for task in (again, *follows):
                    task.cancel()
                await asyncio.gather(again, *follows, return_exceptions=True)
            since = {}

    def restart(self) -> None:
        """Begin anew with a listing, because what is being watched is not what there is."""
        self._again.set()

    async def _follow(self, namespace: str | None, since: str) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                if not since:
                    await self._resync.once()
                    since = self._resync.versions[namespace]
                async with self._client.watch(BOARDS, since, namespace) as chunks:
                    async for event in _events(chunks):
                        pause = FIRST_PAUSE_S
                        since = self._take(event)
                # The API server ends each watch after some minutes.
            except Gone:
                since = ""  # it keeps changes for some minutes only
            except ApiError:
                pass  # resync has said it
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _take(self, event: dict[str, Any]) -> str:
        change, obj = event["type"], event["object"]
        if change == "ERROR":
            raise (Gone if obj.get("code") == 410 else Unavailable)(f"{obj.get('code')}: {obj.get('message')}")
        if change != "BOOKMARK":
            obj["metadata"].pop("managedFields", None)
            # By the loop, which tells loudly of one that fails in us: the others must not wait for ever behind it.
            asyncio.get_running_loop().call_soon(self._sink.on_board, change, obj)
        return str(obj["metadata"]["resourceVersion"])


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    # Lines of any length: aiohttp's own end at 128 KiB.
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError as error:
                raise Unavailable(f"the watch is garbled: {error}") from error
            yield event
        if len(rest) > MAX_LINE:
            raise Unavailable("the watch has a line without an end")
