"""Where Boards and BoardModels are kept, as the runtime sees it: a cluster (`kube`) or a folder (`folder`).

A store tells a sink what there is and what becomes of it, and carries back statuses, finalizers and notices. Objects
are as the API server gives them, whoever keeps them: uid, generation and resourceVersion included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Literal, Protocol

from boardlet_bridge.core.notice import Notice

Change = Literal["ADDED", "MODIFIED", "DELETED"]
Key = tuple[str, str, str]  # plural, namespace, name
Waiting = Callable[[str], None]


class StoreInvalid(Exception):
    """The store cannot be used as it is described; the message says where the description is wrong."""


class Sink(Protocol):
    """Who is told of objects, and asked for what is to be written of them; everything on the main loop."""

    def on_board(self, change: Change, obj: Mapping[str, Any]) -> None: ...
    def on_model(self, change: Change, obj: Mapping[str, Any]) -> None: ...
    def on_rewound(self) -> None: ...
    def serves(self, obj: Mapping[str, Any]) -> bool: ...
    def board_versions(self) -> Mapping[tuple[str, str], str]: ...
    def model_versions(self) -> Mapping[tuple[str, str], str]: ...

    def snapshot(self, key: Key) -> dict[str, Any] | None:
        """The status that is due for a key now, as the body of an apply; None where nothing has to be written."""

    def written(self, key: Key, obj: Mapping[str, Any]) -> None:
        """The object as the store has it after a write of its status."""


class Leases(Protocol):
    """Where replicas of the bridge keep their Leases (coordination.k8s.io/v1); all may raise the store's errors."""

    @property
    def namespace(self) -> str:
        """The bridge's own."""

    async def leases(self, namespace: str, label: str) -> list[dict[str, Any]]: ...
    def watch_leases(self, namespace: str, label: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...
    async def put_lease(self, body: Mapping[str, Any]) -> dict[str, Any]: ...
    async def delete_lease(self, namespace: str, name: str, version: str) -> None: ...


class Store(Protocol):
    """What the runtime needs of wherever the objects are. `open` comes first, then `first`, then `serve`."""

    async def open(self, stack: AsyncExitStack) -> None:
        """Make ready, and have `stack` close it; raises StoreInvalid."""

    async def first(self, waiting: Waiting) -> None:
        """Tell the sink every object there is, models first; tells `waiting` why it takes long."""

    def serve(self, stack: AsyncExitStack) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Begin to follow; the works to be run from now on, by name, none of which ends by itself."""

    def leases(self, may_write: Callable[[], bool]) -> Leases | None:
        """Ask `may_write` before every write from now on; None, and nothing is asked, where replicas cannot be."""

    async def landed(self) -> None:
        """Return when every write that is under way now is done."""

    async def drain(self, within_s: float, values: bool) -> None:
        """Write what waits, as the last thing; without `values` only conditions that have changed."""

    def mark(self, key: Key, urgent: bool) -> None:
        """A key's status has to be written: at once if urgent."""

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None:
        """Have the mailbox's finalizer on this object, or off it."""

    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None:
        """Something has happened to this object, for people."""

    def doubt(self) -> None:
        """What was told does not fit what is known: look at all objects soon."""

    @property
    def pending(self) -> int:
        """How many statuses wait to be written."""

    @property
    def budget_used(self) -> float:
        """The share of the budget of writes that is used up now, 1 where they wait."""

    def parts(self) -> Mapping[str, str]:
        """Of each of its parts why it does not work now, "" while it does."""
