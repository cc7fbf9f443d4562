"""Writes statuses: whoever has something to show marks a key, and the snapshot is taken at the moment of writing.

Marks of one key fall together. A changed condition is urgent and goes at once; mere values wait until `interval_s` has
passed since that key's last write. All writes draw on one budget (a token bucket), the urgent ones first, and one calm
one after every fourth. A key is kept until it has been written or its object is gone, so the last value always arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from boardlet_bridge.core.store import Key
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import ApiError, Conflict, Fenced, NotFound, Rejected, Throttled
from boardlet_bridge.kube.complaint import Complaint

IN_FLIGHT: Final = 8
URGENT_IN_A_ROW: Final = 4  # then one calm write, so that a storm of conditions starves nobody's values
KEPT: Final = 1000  # times of last writes, beyond which those are forgotten that are over
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
FENCED_S: Final = 1.0  # without a lease the API server is not even asked: what waits goes on soon after it is back
DOUBT_S: Final = 1.0
REJECTED_S: Final = 60.0  # a status that the API server will not take is offered again after this time


class StatusClient(Protocol):
    """What the writer needs of the API server."""

    async def apply_status(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]: ...
    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]: ...


class StatusWriter:
    """One a bridge. `snapshot` gives a key's body or None, `written` is told the object as the server has it now."""

    def __init__(
        self,
        client: StatusClient,
        snapshot: Callable[[Key], dict[str, Any] | None],
        written: Callable[[Key, Mapping[str, Any]], None],
        *,
        interval_s: float,
        budget: Budget,
        observe: Callable[[str], None] = lambda outcome: None,
        doubt: Callable[[], None] = lambda: None,
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._client, self._snapshot, self._written, self._observe = client, snapshot, written, observe
        self._doubt, self._took = doubt, took
        self._interval_s, self._budget = interval_s, budget
        self._urgent: deque[Key] = deque()
        self._calm: deque[Key] = deque()
        self._row = 0  # urgent writes since the last calm one
        self._queued: dict[Key, bool] = {}  # waiting to be written: whether urgent
        self._later: list[tuple[float, Key]] = []
        self._delayed: set[Key] = set()
        self._last: dict[Key, float] = {}
        self._last_most = KEPT
        self._flying: dict[Key, asyncio.Task[None]] = {}
        self._paused_until, self._pause = 0.0, FIRST_PAUSE_S
        self._changed = asyncio.Event()
        self._away = Complaint("status", "cannot write statuses, will try again", "statuses are written again")
        self._rejected = Complaint(
            "status",
            "the API server does not take a status: are crds/ of this release?",
            "all statuses are taken again",
        )

    @property
    def why(self) -> str:
        """Why statuses cannot be written now, "" while they can."""
        return self._away.why or self._rejected.why

    def mark(self, key: Key, urgent: bool) -> None:
        """The key's status has to be written: now if urgent, else when its interval is over."""
        if not urgent and key not in self._queued:
            due = self._last.get(key, float("-inf")) + self._interval_s
            if due > asyncio.get_running_loop().time():
                if key not in self._delayed:
                    self._delayed.add(key)
                    heapq.heappush(self._later, (due, key))
                    self._changed.set()
                return
        self._queue(key, urgent)

    def _queue(self, key: Key, urgent: bool) -> None:
        if self._queued.get(key, False) or (key in self._queued and not urgent):
            return
        self._queued[key] = urgent  # a calm entry that became urgent stays in its deque and is skipped there
        (self._urgent if urgent else self._calm).append(key)
        self._changed.set()

    @property
    def pending(self) -> int:
        """How many keys wait or are being written."""
        return len(self._queued) + len(self._delayed) + len(self._flying)

    @property
    def budget_used(self) -> float:
        """The share of the budget that is used up now."""
        return self._budget.used(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Write for as long as it runs; what is being written then is left to `drain`."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            wake_at = self._dispatch(loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(wake_at):
                    await self._changed.wait()

    async def landed(self) -> None:
        """Return when every write that is under way now is done."""
        if self._flying:
            await asyncio.wait(list(self._flying.values()))

    async def drain(self, within_s: float, values: bool = True) -> None:
        """Write what waits, also what may wait longer; returns when all is written or the time is over.

        Without `values` only what is urgent: another replica serves the boards next, and reads the values from them.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        for key in list(self._delayed) if values else ():
            self._queue(key, False)
        self._delayed.clear()
        self._later.clear()
        if not values:
            self._calm.clear()
            self._queued = {key: True for key, urgent in self._queued.items() if urgent}
        while (self._queued or self._flying) and loop.time() < until:
            self._dispatch(loop.time())
            if self._flying:
                await asyncio.wait(self._flying.values(), timeout=until - loop.time(), return_when="FIRST_COMPLETED")
            else:
                await asyncio.sleep(min(0.05, until - loop.time()))  # the budget or a pause of the server holds it
        for task in self._flying.values():
            task.cancel()

    def _dispatch(self, now: float) -> float | None:
        # Starts what may be started; returns when to look again, None for only after a change.
        while self._later and self._later[0][0] <= now:
            key = heapq.heappop(self._later)[1]
            if key in self._delayed:
                self._delayed.discard(key)
                self._queue(key, False)
        wake = [self._later[0][0]] if self._later else []
        held: list[Key] = []
        while len(self._flying) < IN_FLIGHT and (self._urgent or self._calm):
            if now < self._paused_until:
                wake.append(self._paused_until)
                break
            if wait := self._budget.wait_s(now):
                wake.append(now + wait)
                break
            urgent = bool(self._urgent) and (self._row < URGENT_IN_A_ROW or not self._calm)
            key = (self._urgent if urgent else self._calm).popleft()
            self._row = self._row + 1 if urgent else 0
            if self._queued.get(key) is not urgent:
                continue
            if key in self._flying:
                held.append(key)  # comes back when its write has ended
                continue
            del self._queued[key]
            self._start(key, now)
        for key in held:
            (self._urgent if self._queued[key] else self._calm).append(key)
        return min(wake) if wake else None

    def _start(self, key: Key, now: float) -> None:
        body = self._snapshot(key)
        if body is None:
            return
        self._budget.spend()
        self._last[key] = now
        if len(self._last) > self._last_most:
            self._last = {k: at for k, at in self._last.items() if now - at < self._interval_s}
            self._last_most = max(KEPT, 2 * len(self._last))
        task = self._flying[key] = asyncio.create_task(self._outcome(key, body), name=f"status {key}")
        # Not in the task itself, which never begins if it is cancelled at once.
        task.add_done_callback(lambda _: self._landed(key))

    def _landed(self, key: Key) -> None:
        del self._flying[key]
        self._changed.set()

    async def _outcome(self, key: Key, body: dict[str, Any]) -> None:
        began = asyncio.get_running_loop().time()
        try:
            obj = await self._client.apply_status(key[0], body)
        except Conflict:
            self._observe("conflict")
            await self._read_again(key)
        except NotFound:
            self._observe("not_found")  # the watch says what became of it
        except Rejected as error:
            self._observe("rejected")
            self._rejected.failed(str(error), object="/".join(key))
            self._again_at(key, asyncio.get_running_loop().time() + REJECTED_S)
            # The old status must not go on to stand there as if it were true: at least the conditions.
            bare = {**body, "status": {"conditions": body.get("status", {}).get("conditions")}}
            if bare != body and bare["status"]["conditions"]:
                await self._outcome(key, bare)
        except ApiError as error:
            self._back_off(key, error)
        else:
            self._observe("written")
            self._took(asyncio.get_running_loop().time() - began)
            self._pause = FIRST_PAUSE_S
            self._away.worked()
            self._written(key, obj)

    async def _read_again(self, key: Key) -> None:
        # Someone else has written meanwhile: the next snapshot goes on top of the object as it is now.
        try:
            obj = await self._client.get(*key)
        except NotFound:
            return  # the watch says what became of it
        except ApiError as error:
            self._back_off(key, error)
            return
        self._written(key, obj)
        if self._snapshot_is_older(key, obj):
            # What is known is newer than what there is: the cluster went back. Whoever lists finds out.
            self._doubt()
            self._again_at(key, asyncio.get_running_loop().time() + DOUBT_S)
        else:
            self._queue(key, True)

    def _snapshot_is_older(self, key: Key, obj: Mapping[str, Any]) -> bool:
        body = self._snapshot(key) or {}
        known = (body.get("metadata") or {}).get("resourceVersion") or ""
        there = (obj.get("metadata") or {}).get("resourceVersion") or ""
        return known.isdigit() and there.isdigit() and int(there) < int(known)

    def _back_off(self, key: Key, error: ApiError) -> None:
        self._observe("unavailable")
        patience = error.retry_after_s if isinstance(error, Throttled) else 0.0
        now = asyncio.get_running_loop().time()
        self._away.failed(str(error), object="/".join(key))
        if now >= self._paused_until:
            pause = FENCED_S if isinstance(error, Fenced) else self._pause
            self._paused_until = now + max(patience, random.uniform(pause / 2, pause))
            if not isinstance(error, Fenced):
                self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        self._queue(key, True)

    def _again_at(self, key: Key, when: float) -> None:
        if key not in self._delayed:
            self._delayed.add(key)
            heapq.heappush(self._later, (when, key))
