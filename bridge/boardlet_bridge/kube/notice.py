"""Writes notices as Kubernetes Events (core/v1, which `kubectl describe` shows), so that they never delay a status.

What happens again within `SERIES_S` is counted on the Event that is there, with its latest words; what happens while an
Event waits to be written costs nothing. One Board has a budget, so has the bridge, and what is beyond is counted and
dropped: an Event is a courtesy, the truth is in the status.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from boardlet_bridge.core.notice import Notice
from boardlet_bridge.kube.client import ApiError, NotFound, Rejected, Throttled

SERIES_S: Final = 600.0  # as client-go's recorder counts
MAX_SERIES: Final = 4096  # about 2 MB; beyond, the oldest series begins anew
MAX_WAITING: Final = 1000
MAX_MESSAGE: Final = 1024  # what the API server takes
MAX_NAME: Final = 200  # of the Board in the Event's name, which has at most 253
TRIES: Final = 5
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
COMPONENT: Final = "boardlet-bridge"

Key = tuple[str, str]  # uid of the object, what happened

log = structlog.get_logger("notice")


class EventClient(Protocol):
    """What the writer needs of the API server."""

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None: ...
    async def patch_event(self, namespace: str, name: str, body: Mapping[str, Any]) -> None: ...


@dataclass(slots=True)
class Series:
    """One Event, and what has to be written of it."""

    body: dict[str, Any]
    latest: float
    there: bool = False


@dataclass(slots=True)
class Budget:
    """A token bucket."""

    tokens: float
    at: float

    def take(self, now: float, burst: int, per_s: float) -> bool:
        self.tokens = min(burst, self.tokens + (now - self.at) * per_s)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class NoticeWriter:
    """One a bridge; `observe` is told what became of each notice."""

    def __init__(
        self,
        client: EventClient,
        *,
        per_s: float,
        burst: int,
        board_burst: int,
        board_interval_s: float,
        observe: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._client, self._observe = client, observe
        self._per_s, self._burst = per_s, burst
        self._board_burst, self._board_per_s = board_burst, 1 / board_interval_s
        self._series: OrderedDict[Key, Series] = OrderedDict()
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._boards: dict[str, Budget] = {}
        self._budget = Budget(burst, 0.0)
        self._changed = asyncio.Event()
        self._host = socket.gethostname()[:MAX_NAME]

    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None:
        """Have it written as an Event of this object, sooner or later."""
        now = asyncio.get_running_loop().time()
        key = obj["metadata"]["uid"], notice.happening
        series = self._series.get(key)
        if key not in self._waiting:
            if len(self._waiting) >= MAX_WAITING:
                self._observe("dropped")
                return
            if not self._may(key[0], now):
                self._observe("dropped")
                return
            if series is None or now - series.latest > SERIES_S:
                series = self._begin(key, obj, notice, now)
            self._waiting[key] = None
            self._changed.set()
        assert series is not None, "what waits has a series"
        _count(series, notice.message, now)
        self._series.move_to_end(key)

    def _may(self, uid: str, now: float) -> bool:
        budget = self._boards.get(uid)
        if budget is None:
            if len(self._boards) >= MAX_SERIES:  # who has filled up again needs no record
                full = self._board_burst / self._board_per_s
                self._boards = {k: b for k, b in self._boards.items() if now - b.at < full}
            budget = self._boards[uid] = Budget(self._board_burst, now)
        return budget.take(now, self._board_burst, self._board_per_s)

    def _begin(self, key: Key, obj: Mapping[str, Any], notice: Notice, now: float) -> Series:
        meta = obj["metadata"]
        series = self._series[key] = Series(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": f"{meta['name'][:MAX_NAME]}.{secrets.token_hex(8)}",
                    "namespace": meta["namespace"],
                },
                "involvedObject": {
                    "apiVersion": obj.get("apiVersion", "boardlet.dev/v1alpha1"),
                    "kind": obj.get("kind", "Board"),
                    **{k: meta[k] for k in ("namespace", "name", "uid", "resourceVersion")},
                },
                "type": notice.kind,
                "reason": notice.happening,
                "firstTimestamp": _wall(),
                "count": 0,
                "source": {"component": COMPONENT},
                "reportingComponent": COMPONENT,
                "reportingInstance": self._host,
            },
            now,
        )
        while len(self._series) > MAX_SERIES:
            oldest = next(iter(self._series))
            del self._series[oldest]
            self._waiting.pop(oldest, None)
        return series

    async def run(self) -> None:
        """Write for as long as it runs, one at a time."""
        loop = asyncio.get_running_loop()
        self._budget.at = loop.time()
        while True:
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            if not self._budget.take(loop.time(), self._burst, self._per_s):
                await asyncio.sleep((1 - self._budget.tokens) / self._per_s)
                continue
            key, _ = self._waiting.popitem(last=False)
            await self._write(self._series[key])

    async def _write(self, series: Series) -> None:
        pause, why = FIRST_PAUSE_S, ""
        for _ in range(TRIES):
            try:
                await self._send(series)
            except Rejected as error:
                why = str(error)
                break
            except ApiError as error:
                why = str(error)
                patience = error.retry_after_s if isinstance(error, Throttled) else 0.0
                await asyncio.sleep(max(patience, pause))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._observe("written")
                return
        about = series.body["involvedObject"]
        log.info("an event could not be written", object=f"{about['namespace']}/{about['name']}", why=why)
        self._observe("dropped")

    async def _send(self, series: Series) -> None:
        meta = series.body["metadata"]
        if series.there:
            changes = {name: series.body[name] for name in ("count", "lastTimestamp", "message")}
            try:
                await self._client.patch_event(meta["namespace"], meta["name"], changes)
            except NotFound:
                series.there = False  # the cluster forgets events after an hour
            else:
                return
        await self._client.create_event(meta["namespace"], series.body)
        series.there = True


def _count(series: Series, message: str, now: float) -> None:
    series.latest = now
    cut = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
    series.body |= {"count": series.body["count"] + 1, "lastTimestamp": _wall(), "message": cut}


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
