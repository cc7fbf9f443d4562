"""Lists all objects: once at the start, and then now and again, to find what the watch has missed.

A watch that had to begin anew never tells what was deleted meanwhile. Absence from a list proves nothing either (rule 2
of docs/design.md), so that an object which a list lacks is asked for by name, and only a 404 counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from boardlet_bridge.core.store import Change
from boardlet_bridge.kube.client import ApiError, Gone, KubeClient, NotFound, Throttled, Unavailable
from boardlet_bridge.kube.complaint import Complaint
from boardlet_bridge.kube.handlers import BOARDS, WatchSink

PAGE: Final = 100  # while a page is parsed, 10 ms, nobody's edit goes on
MODELS: Final = "boardmodels"
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
FIRST_LISTING_S: Final = 5.0  # the longest pause of a bridge that serves nothing until it has listed
PAGE_TRIES: Final = 5  # what was listed so far is worth some patience: a large list may never come without a failure
SOON_S: Final = 10.0  # what was deleted between the first listing and the begin of the watch is found then

Names = Callable[[], Mapping[tuple[str, str], str]]  # name → resourceVersion as known


class Resync:
    """Lists through `client` and tells `sink`; `boards` and `models` tell the objects that are known now."""

    def __init__(
        self, client: KubeClient, sink: WatchSink, namespaces: Sequence[str], boards: Names, models: Names
    ) -> None:
        self._client = client
        self._sink = sink
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self._known: dict[str, Names] = {BOARDS: boards, MODELS: models}
        self._soon = asyncio.Event()
        self.versions: dict[str | None, str] = {}
        """By namespace the resourceVersion of the last listing of Boards, from which a watch goes on."""
        self._down: dict[tuple[str, str | None], str] = {}
        self._complaint = Complaint(
            "resync",
            "the API server is away, or lets nothing be watched; boards are served as before",
            "the API server is back",
        )
        self._listing = Complaint("resync", "cannot list the objects, will try again", "the objects are listed again")

    @property
    def away(self) -> str:
        """Why what the API server has cannot be watched now, "" while it can."""
        return next(iter(self._down.values()), self._listing.why)

    async def first(self, waiting: Callable[[str], None]) -> None:
        """List everything once; tells `waiting` why it takes long, and tries until it has succeeded."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await self.once()
            except NotFound as error:
                waiting(f"the cluster does not know Boardlet's kinds yet: kubectl apply -f crds/ ({error})")
            except ApiError as error:
                waiting(str(error))
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, FIRST_LISTING_S)

    async def run(self, interval_s: float) -> None:
        """List every `interval_s` seconds, a tenth of it early at random, and when asked."""
        pause = min(SOON_S, interval_s)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), pause)
            self._soon.clear()
            pause = interval_s * random.uniform(0.9, 1.0)
            try:
                await self.once()
                self._listing.worked()
            except ApiError as error:
                self._listing.failed(str(error))
                pause = min(pause, LONGEST_PAUSE_S)

    def soon(self) -> None:
        """List now rather than later."""
        self._soon.set()

    async def once(self) -> None:
        """List both kinds, models first, so that no board is told that its model is missing when it is not."""
        await self._list(MODELS, self._sink.on_model)
        await self._list(BOARDS, self._sink.on_board)

    async def _list(self, plural: str, tell: Callable[[Change, Mapping[str, Any]], None]) -> None:
        before = known = dict(self._known[plural]())
        seen: set[tuple[str, str]] = set()
        for namespace in self._namespaces:
            token = ""
            while True:
                try:
                    page = await self._page(plural, token, namespace)
                except Gone:  # the listing took longer than the cluster keeps its pages
                    token = ""
                    await asyncio.sleep(random.uniform(FIRST_PAUSE_S / 2, FIRST_PAUSE_S))
                    continue
                for obj in page["items"]:
                    obj["metadata"].pop("managedFields", None)
                    name = obj["metadata"]["namespace"], obj["metadata"]["name"]
                    seen.add(name)
                    if _older(obj["metadata"]["resourceVersion"], before.get(name, "")):
                        # A list shows everything that was there when it was asked for, unless the cluster was restored.
                        self._sink.on_rewound()
                        before = {}
                    tell("MODIFIED", obj)
                token = page["metadata"].get("continue") or ""
                if not token:
                    break
            if plural == BOARDS:
                self.versions[namespace] = page["metadata"].get("resourceVersion") or ""
        for name in known.keys() - seen:
            await self._ask(plural, name, tell)

    async def _page(self, plural: str, token: str, namespace: str | None) -> dict[str, Any]:
        pause = FIRST_PAUSE_S
        for left in reversed(range(PAGE_TRIES)):
            try:
                return await self._client.list_page(plural, PAGE, token, namespace)
            except (Throttled, Unavailable) as error:
                if not (token and left):  # without a first page there is nothing to go on with
                    raise
                patience = error.retry_after_s if isinstance(error, Throttled) else 0.0
            await asyncio.sleep(max(patience, random.uniform(pause / 2, pause)))
            pause *= 2
        raise AssertionError("the last try returns or raises")

    async def guard(self) -> None:
        """Hold an idle watch a kind; list anew when one comes back after an outage: the cluster may be another then."""
        watches = [(plural, namespace) for plural in (MODELS, BOARDS) for namespace in self._namespaces]
        await asyncio.gather(*(self._guard(*watch) for watch in watches))

    async def _guard(self, plural: str, namespace: str | None) -> None:
        pause, this = FIRST_PAUSE_S, (plural, namespace)
        while True:
            try:
                async with self._client.watch_nothing(plural, namespace) as lines:
                    pause = FIRST_PAUSE_S
                    if self._down.pop(this, "") and not self._down:
                        self._complaint.worked()
                        self.soon()
                    async for _ in lines:
                        pass
            except ApiError as error:
                self._down[this] = str(error)
                self._complaint.failed(str(error))
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _ask(self, plural: str, name: tuple[str, str], tell: Callable[[Change, Mapping[str, Any]], None]) -> None:
        try:
            tell("MODIFIED", await self._client.get(plural, *name))
        except NotFound:
            tell("DELETED", {"metadata": {"namespace": name[0], "name": name[1]}})


def _older(version: str, than: str) -> bool:
    return version.isdigit() and than.isdigit() and int(version) < int(than)
