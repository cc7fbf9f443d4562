"""Puts the mailbox's finalizer on a Board, or takes it off, until the API server has said yes or the object is gone.

Only the last wish per object counts. A wish that was overtaken by another change of the object (a conflict) is tried on
the object as it is now: that change may have been a status of our own, which makes the core wish nothing anew.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import ApiError, Conflict, KubeClient, NotFound
from boardlet_bridge.kube.complaint import Complaint

IN_FLIGHT: Final = 4  # ten thousand new Boards at once must not become ten thousand connections
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0

Wish = tuple[Mapping[str, Any], bool]  # an object, and whether the finalizer is to be on it


class Finalizers:
    """Writes wishes within `budget`; `seen` gets the object as the API server answered it.

    `ours` is asked before each write whether the object is still this replica's to serve.
    """

    def __init__(
        self,
        client: KubeClient,
        seen: Callable[[Mapping[str, Any]], None],
        budget: Budget,
        ours: Callable[[Mapping[str, Any]], bool] = lambda obj: True,
    ) -> None:
        self._client = client
        self._seen = seen
        self._ours = ours
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._wishes: dict[str, Wish] = {}
        self._queue: deque[str] = deque()
        self._pauses: dict[str, float] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._flying: set[asyncio.Future[None]] = set()
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
        if uid not in self._wishes:
            self._queue.append(uid)
        self._wishes[uid] = obj, present
        if len(self._workers) < IN_FLIGHT:
            worker = self._loop.create_task(self._work(), name="finalizers")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def stop(self) -> None:
        """Give up what is unmet; the next bridge asks again."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while self._queue:
            wait = self._budget.wait_s(self._loop.time())
            if wait:
                await asyncio.sleep(wait)
                continue
            self._budget.spend()
            flying = self._loop.create_future()
            self._flying.add(flying)
            try:
                await self._fulfil(*self._wishes.pop(self._queue.popleft()))
            finally:
                self._flying.discard(flying)
                flying.set_result(None)

    async def landed(self) -> None:
        """Return when every write that is under way now is done."""
        if self._flying:
            await asyncio.wait(list(self._flying))

    async def _fulfil(self, obj: Mapping[str, Any], present: bool) -> None:
        if not self._ours(obj):
            return
        try:
            answer = await self._client.set_finalizer(obj, present)
        except NotFound:
            return
        except Conflict:
            await self._on_top(obj, present)
        except ApiError as error:
            self._later(obj, present, error)
        else:
            self._pauses.pop(obj["metadata"]["uid"], None)
            self._complaint.worked()
            self._seen(answer)

    async def _on_top(self, old: Mapping[str, Any], present: bool) -> None:
        meta = old["metadata"]
        try:
            obj = await self._client.get("boards", meta["namespace"], meta["name"])
        except NotFound:
            return
        except ApiError as error:
            self._later(old, present, error)
            return
        # Another object of this name has wishes of its own; to one that is being deleted no finalizer can be added.
        ours = obj["metadata"]["uid"] == meta["uid"] and not (present and obj["metadata"].get("deletionTimestamp"))
        if ours and meta["uid"] not in self._wishes:
            self.want(obj, present)

    def _later(self, obj: Mapping[str, Any], present: bool, error: ApiError) -> None:
        meta = obj["metadata"]
        uid = meta["uid"]
        self._complaint.failed(str(error), object=f"{meta['namespace']}/{meta['name']}")
        pause = self._pauses.get(uid, FIRST_PAUSE_S)
        self._pauses[uid] = min(2 * pause, LONGEST_PAUSE_S)

        def again() -> None:
            if uid not in self._wishes:
                self.want(obj, present)

        self._loop.call_later(random.uniform(0, pause), again)
