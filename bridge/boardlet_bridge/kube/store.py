"""The cluster as the store of all objects: client, listing, watches and writers put together."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.store import Change, Key, Leases, Sink, Waiting
from boardlet_bridge.kube import connection
from boardlet_bridge.kube.board_watch import BoardWatch
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import KubeClient
from boardlet_bridge.kube.finalizer import Finalizers
from boardlet_bridge.kube.handlers import Watch
from boardlet_bridge.kube.notice import NoticeWriter
from boardlet_bridge.kube.resync import Resync
from boardlet_bridge.kube.status_writer import StatusWriter


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """Which cluster, and how much may be written to it; each as in `boardlet-bridge --help`."""

    kubeconfig: Path | None
    context: str | None
    namespaces: Sequence[str]
    status_interval_s: float
    status_writes_per_s: float
    status_burst: int
    resync_s: float
    events_per_s: float
    events_burst: int
    board_events_burst: int
    board_event_interval_s: float


class KubeStore:
    """A cluster's Boards and BoardModels; `wrote` and `noticed` are told what became of statuses and Events.

    `took` is told how many seconds each status took that was written.
    """

    client: KubeClient

    def __init__(
        self,
        settings: KubeSettings,
        sink: Sink,
        wrote: Callable[[str], None],
        noticed: Callable[[str], None],
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._settings, self._sink = settings, sink
        self._wrote, self._noticed, self._took = wrote, noticed, took
        self._watches: Sequence[BoardWatch | Watch] = ()
        self._writer: StatusWriter
        self._finalizers: Finalizers
        self._notices: NoticeWriter
        self._resync: Resync

    async def open(self, stack: AsyncExitStack) -> None:
        """Describe the connection; nothing is asked yet. Raises StoreInvalid."""
        settings, sink = self._settings, self._sink
        self._described = connection.find(settings.kubeconfig, settings.context)
        self.client = await stack.enter_async_context(KubeClient(self._described))
        budget = Budget(settings.status_writes_per_s, settings.status_burst)
        self._finalizers = Finalizers(self.client, lambda obj: sink.on_board("MODIFIED", obj), budget, sink.serves)
        stack.push_async_callback(self._finalizers.stop)
        self._writer = StatusWriter(
            self.client,
            sink.snapshot,
            sink.written,
            interval_s=settings.status_interval_s,
            budget=budget,
            observe=self._wrote,
            doubt=self.doubt,
            took=self._took,
        )
        self._notices = NoticeWriter(
            self.client,
            per_s=settings.events_per_s,
            burst=settings.events_burst,
            board_burst=settings.board_events_burst,
            board_interval_s=settings.board_event_interval_s,
            observe=self._noticed,
        )
        self._resync = Resync(self.client, self, settings.namespaces, sink.board_versions, sink.model_versions)

    async def first(self, waiting: Waiting) -> None:
        await self._resync.first(waiting)

    def serve(self, stack: AsyncExitStack) -> Mapping[str, Coroutine[Any, Any, None]]:
        settings = self._settings
        boards = BoardWatch(self.client, self._resync, settings.namespaces, self)
        watch = Watch(self._described, settings.namespaces, self)
        self._watches = [boards, watch]
        watch.start()
        stack.push_async_callback(watch.stop)
        return {
            "boards": boards.run(),
            "writer": self._writer.run(),
            "notices": self._notices.run(),
            "resync": self._resync.run(settings.resync_s),
            "guard": self._resync.guard(),
        }

    def leases(self, may_write: Callable[[], bool]) -> Leases:
        self.client.may_write = may_write
        return self.client

    async def landed(self) -> None:
        await self._writer.landed()
        await self._finalizers.landed()

    async def drain(self, within_s: float, values: bool) -> None:
        await self._writer.drain(within_s, values)
        await self._finalizers.stop()

    def mark(self, key: Key, urgent: bool) -> None:
        self._writer.mark(key, urgent)

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None:
        self._finalizers.want(obj, present)

    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None:
        self._notices.tell(obj, notice)

    def doubt(self) -> None:
        self._resync.soon()

    @property
    def pending(self) -> int:
        return self._writer.pending

    @property
    def budget_used(self) -> float:
        return self._writer.budget_used

    def parts(self) -> Mapping[str, str]:
        return {"cluster": self._resync.away, "statuses": self._writer.why, "finalizers": self._finalizers.why}

    # What the watches and the listing tell
    def on_board(self, change: Change, obj: Mapping[str, Any]) -> None:
        self._sink.on_board(change, obj)

    def on_model(self, change: Change, obj: Mapping[str, Any]) -> None:
        self._sink.on_model(change, obj)

    def on_rewound(self) -> None:
        """The cluster was restored: what is being watched is not what there is."""
        self._sink.on_rewound()
        for watch in self._watches:
            watch.restart()
