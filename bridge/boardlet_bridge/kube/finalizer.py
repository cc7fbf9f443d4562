"""Puts the mailbox's finalizer on a Board, or takes it off, until the API server has said yes or the object is gone.

The core asks anew at every look at the object, so that only the last wish per object counts, and a wish that was
overtaken by another change (a conflict) may simply be dropped: the change itself brings the core's next wish.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from boardlet_bridge.kube.client import ApiError, Conflict, KubeClient, NotFound
from boardlet_bridge.kube.complaint import Complaint

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0


class Finalizers:
    """One task per object for as long as its wish is unmet; `seen` gets the object as the API server answered it."""

    def __init__(self, client: KubeClient, seen: Callable[[Mapping[str, Any]], None]) -> None:
        self._client = client
        self._seen = seen
        self._wishes: dict[str, tuple[Mapping[str, Any], bool]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._complaint = Complaint(
            "finalizer", "cannot write finalizers, will try again", "finalizers are written again"
        )

    @property
    def why(self) -> str:
        """Why finalizers cannot be written now, "" while they can."""
        return self._complaint.why

    def want(self, obj: Mapping[str, Any], present: bool) -> None:
        """Have the finalizer on this object, or off it."""
        uid = obj["metadata"]["uid"]
        self._wishes[uid] = (obj, present)
        if uid not in self._tasks:
            self._tasks[uid] = asyncio.create_task(self._fulfil(uid), name=f"finalizer {uid}")

    async def stop(self) -> None:
        """Give up what is unmet; the next bridge asks again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fulfil(self, uid: str) -> None:
        pause = FIRST_PAUSE_S
        try:
            while uid in self._wishes:
                obj, present = self._wishes.pop(uid)
                try:
                    await self._write(obj, present)
                except (Conflict, NotFound):
                    continue
                except ApiError as error:
                    meta = obj["metadata"]
                    self._complaint.failed(str(error), board=f"{meta['namespace']}/{meta['name']}")
                    self._wishes.setdefault(uid, (obj, present))
                    await asyncio.sleep(random.uniform(0, pause))
                    pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            del self._tasks[uid]

    async def _write(self, obj: Mapping[str, Any], present: bool) -> None:
        answer = await self._client.set_finalizer(obj, present)
        self._complaint.worked()
        self._seen(answer)
