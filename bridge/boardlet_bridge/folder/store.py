"""A folder as the store of all objects: what an API server does for a cluster, with files and the kernel's notices.

One task looks at the files when the kernel says that they have changed, compares what they say with the records, and
tells the sink what became of each object. A generation is on disk before the sink hears of it, so that no crash can
give it to another edit. A document that is gone is no deletion at once: editors and Git replace files in two steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from boardlet_bridge.core.board import FINALIZER
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.store import Change, Key, Sink, StoreInvalid, Waiting
from boardlet_bridge.folder.change import KEEP, broken
from boardlet_bridge.folder.document import Document
from boardlet_bridge.folder.kind import of_plural
from boardlet_bridge.folder.notify import Notify
from boardlet_bridge.folder.problem import NAME, Problem, Problems
from boardlet_bridge.folder.record import MAX_EVENTS, InUse, Record, Records, new_meta, wall, with_words
from boardlet_bridge.folder.source import Found, Source, ours, title
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import Conflict, NotFound, Unavailable
from boardlet_bridge.kube.complaint import Complaint
from boardlet_bridge.kube.status_writer import StatusWriter

AGAIN_S: Final = 2.0  # a disk that is full, a folder that is away
MODELS: Final = "boardmodels"
BOARDS: Final = "boards"

log = structlog.get_logger("folder")


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """Which folder, and how often statuses are written; each as in `boardlet-bridge --help`."""

    store_folder: Path
    namespaces: Sequence[str]
    status_interval_s: float
    status_writes_per_s: float
    status_burst: int
    resync_s: float
    store_absent_s: float


class FolderStore:
    """The Boards and BoardModels of a folder; `wrote` is told what became of each status, `took` its seconds."""

    def __init__(
        self,
        settings: FolderSettings,
        sink: Sink,
        wrote: Callable[[str], None],
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._settings, self._sink = settings, sink
        self._root = settings.store_folder
        self._source = Source(settings.store_folder, settings.namespaces)
        self._records = Records(settings.store_folder)
        self._problems = Problems(self._records.folder / NAME)
        self._known: dict[Key, Record] = {}
        self._locks: dict[Key, asyncio.Lock] = {}
        self._version = 0
        self._listed = False
        self._missing: dict[Key, float] = {}  # since when a document is not there
        self._brought: dict[Key, Document] = {}  # what was last looked at of each object
        self._refused: dict[Key, list[Problem]] = {}
        self._released: set[str] = set()  # uids of deleted objects that nothing holds any more
        self._changed: set[str] = set()
        self._whole, self._wake = True, asyncio.Event()
        self._notify: Notify
        self._complaint = Complaint("folder", "cannot use the folder, will try again", "the folder is used again")
        self._writer = StatusWriter(
            self,
            sink.snapshot,
            sink.written,
            interval_s=settings.status_interval_s,
            budget=Budget(settings.status_writes_per_s, settings.status_burst),
            observe=wrote,
            doubt=self.doubt,
            took=took,
        )

    async def open(self, stack: AsyncExitStack) -> None:
        """Be the one bridge of this folder; raises StoreInvalid."""
        if not self._root.is_dir():
            raise StoreInvalid(f"store dir:{self._root}: there is no such folder: create it, or mend the path")
        self._stack = stack
        try:
            self._records.prepare()
            stack.callback(os.close, self._records.lock())
            self._notify = stack.enter_context(Notify(self._root))
        except InUse as error:
            raise StoreInvalid(str(error)) from error
        except OSError as error:
            raise StoreInvalid(f"store dir:{self._root}: {error}; the bridge's user must be able to write") from error

    async def first(self, waiting: Waiting) -> None:
        def bad(file: str, why: str) -> None:
            log.warning("a status file cannot be read, its object gets a new uid", file=file, why=why)

        # By a reader of its own, whose memory of what it has read ends with it.
        for key, record in await asyncio.to_thread(lambda: list(Records(self._root).load(bad))):
            self._known[key] = record
            self._version = max(self._version, int(record.object["metadata"]["resourceVersion"]))
        while not await self._look():
            waiting(self._complaint.why)
            await asyncio.sleep(AGAIN_S)
        self._listed = True
        for key in sorted(self._known, key=_models_first):
            self._tell(key, "ADDED")

    def serve(self, stack: AsyncExitStack) -> Mapping[str, Coroutine[Any, Any, None]]:
        return {"folder": self._run(), "inotify": self._hear(), "writer": self._writer.run()}

    def leases(self, may_write: Callable[[], bool]) -> None:
        """A folder has one bridge."""

    async def landed(self) -> None:
        """What is written is written at once."""

    async def drain(self, within_s: float, values: bool) -> None:
        await self._writer.drain(within_s)

    def mark(self, key: Key, urgent: bool) -> None:
        self._writer.mark(key, urgent)

    def doubt(self) -> None:
        self._whole = True
        self._wake.set()

    @property
    def pending(self) -> int:
        return self._writer.pending

    @property
    def budget_used(self) -> float:
        return self._writer.budget_used

    def parts(self) -> Mapping[str, str]:
        return {"folder": self._complaint.why, "statuses": self._writer.why}

    def tell(self, obj: Mapping[str, Any], notice: Notice) -> None:
        """What happened goes to the log, and with the next status into the object's record."""
        meta = obj["metadata"]
        say = log.info if notice.kind == "Normal" else log.warning
        say("event", object=f"{meta['namespace']}/{meta['name']}", reason=notice.happening, message=notice.message)
        record = self._known.get((BOARDS, meta["namespace"], meta["name"]))
        if record is not None and record.uid == meta["uid"]:
            event = {"time": wall(), "type": notice.kind, "reason": notice.happening, "message": notice.message}
            record.events[:] = [*record.events, event][-MAX_EVENTS:]

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None:
        """Boards have it from the beginning; when it goes, so does the object that was deleted."""
        if not present:
            self._released.add(obj["metadata"]["uid"])
            self.doubt()

    # What the status writer needs of an API server
    async def apply_status(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]:
        meta = body["metadata"]
        key = plural, str(meta["namespace"]), str(meta["name"])
        async with self._lock(key):
            record = self._known.get(key)
            if record is None or record.uid != meta["uid"]:
                raise NotFound(title(key))
            if record.object["metadata"]["resourceVersion"] != meta["resourceVersion"]:
                raise Conflict(title(key))
            obj = self._versioned({**record.object, "status": body["status"]})
            try:
                await self._save(key, replace(record, object=obj))
            except OSError as error:
                raise Unavailable(f"{error.strerror}: {error.filename}") from error
            return dict(obj)

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        record = self._known.get((plural, namespace, name))
        if record is None:
            raise NotFound(f"{plural} {namespace}/{name}")
        return dict(record.object)

    # Looking at the files
    async def _hear(self) -> None:
        while True:
            names = await self._notify.changed()
            if names is None:
                self._whole = True
            else:
                self._changed |= names
            self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        resync_at = loop.time() + self._settings.resync_s
        while True:
            until = min([resync_at, *(at + self._settings.store_absent_s for at in self._missing.values())])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            if loop.time() >= resync_at:
                resync_at, self._whole = loop.time() + self._settings.resync_s, True
            if not await self._look():
                await asyncio.sleep(AGAIN_S)
                self.doubt()

    async def _look(self) -> bool:
        # Whether all that was found could be kept.
        self._wake.clear()
        names = None if self._whole else {name for name in self._changed if ours(os.path.basename(name))}
        self._whole, self._changed = False, set()
        try:
            if names is None:
                self._notify.follow(await asyncio.to_thread(self._source.folders))
            await asyncio.to_thread(self._source.look, names)
            found = self._source.found({key: record.file for key, record in self._known.items()})
            if not self._records.folder.is_dir():
                await self._replace_records(found)
            await self._take(found)
        except OSError as error:
            self._complaint.failed(f"{error.strerror or error}: {error.filename or self._root}")
            return False
        self._complaint.worked()
        return True

    async def _replace_records(self, found: Found) -> None:
        if not found.objects:
            # A disk that is not mounted is an empty folder, and no deletion of everything.
            raise FileNotFoundError(2, "neither objects nor statuses are there, is it mounted?", str(self._root))
        await asyncio.to_thread(self._records.prepare)
        self._stack.callback(os.close, self._records.lock())
        for key in list(self._known):
            async with self._lock(key):
                await self._save(key, self._known[key])

    async def _take(self, found: Found) -> None:
        for key in sorted(found.objects, key=_models_first):
            self._missing.pop(key, None)
            if found.objects[key] is not self._brought.get(key):
                async with self._lock(key):
                    self._refused.pop(key, None)
                    await self._bring(key, found.objects[key])
                self._brought[key] = found.objects[key]
        for key in sorted(self._known.keys() - found.objects.keys(), key=_models_first, reverse=True):
            self._brought.pop(key, None)
            self._refused.pop(key, None)
            await self._miss(key, found)
        for key in [key for key, record in self._known.items() if record.deleting]:
            if key[0] == MODELS or self._known[key].uid in self._released:
                await self._forget(key)
        refused = [problem for problems in self._refused.values() for problem in problems]
        present = self._problems.differ([*found.problems, *refused])
        if present is not None:
            await asyncio.to_thread(self._problems.write, present)

    async def _bring(self, key: Key, document: Document) -> None:
        record = self._known.get(key)
        if record is not None and record.deleting:
            return  # it is made anew when the old one is gone
        wanted = document.object["metadata"]
        uid = wanted.get("uid")
        if record is None or (uid and uid != record.uid and self._free(uid)):
            await self._create(key, document, record)
            return
        meta = record.object["metadata"]
        changed = document.object["spec"] != record.object["spec"]
        new = with_words(meta, wanted)
        if not changed and record.file == document.file and new == meta:
            return
        rules = broken(of_plural(key[0]).title, document.object["spec"], record.object["spec"])
        if rules:
            self._refused[key] = [Problem(document.file, document.line, title(key), rule, KEEP) for rule in rules]
            return
        new["generation"] = meta["generation"] + changed
        obj = self._versioned({**record.object, "metadata": new, "spec": document.object["spec"]})
        await self._save(key, Record(obj, document.file, record.events))
        log.info("edited", object=title(key), file=document.file, generation=new["generation"])
        self._tell(key, "MODIFIED")

    async def _create(self, key: Key, document: Document, before: Record | None) -> None:
        obj, wanted = document.object, document.object["metadata"]
        kind = of_plural(key[0])
        meta = {"name": key[2], "namespace": key[1], **new_meta(wanted, not self._free(wanted.get("uid")))}
        meta = with_words(meta, wanted)
        if key[0] == BOARDS:
            meta["finalizers"] = [FINALIZER]
        made = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta, "spec": obj["spec"]}
        # A status that came along is what was last known: it has the revision, and the key that the board holds.
        came = meta["uid"] == wanted.get("uid") and kind.valid_status(obj.get("status"))
        full = {**made, "status": obj["status"]} if came else kind.defaulted(made)
        await self._save(key, Record(self._versioned(full), document.file))
        log.info("created", object=title(key), file=document.file, uid=meta["uid"], replaces=before is not None)
        self._tell(key, "ADDED" if before is None else "MODIFIED")

    async def _miss(self, key: Key, found: Found) -> None:
        record = self._known[key]
        if record.deleting or record.file in found.spoiled:
            self._missing.pop(key, None)
            return
        now = asyncio.get_running_loop().time()
        if now < self._missing.setdefault(key, now) + self._settings.store_absent_s:
            return
        del self._missing[key]
        async with self._lock(key):
            meta = {**record.object["metadata"], "deletionTimestamp": wall()}
            record = self._known[key]
            await self._save(key, replace(record, object=self._versioned({**record.object, "metadata": meta})))
        log.info("deleted", object=title(key), file=record.file)
        if key[0] == BOARDS:
            self._tell(key, "MODIFIED")

    async def _forget(self, key: Key) -> None:
        async with self._lock(key):
            await asyncio.to_thread(self._records.drop, key)
            record = self._known.pop(key)
        del self._locks[key]
        self._brought.pop(key, None)
        self._released.discard(record.uid)
        if self._listed:
            (self._sink.on_model if key[0] == MODELS else self._sink.on_board)("DELETED", record.object)
        self.doubt()  # it may have been written anew meanwhile

    def _tell(self, key: Key, change: Change) -> None:
        if self._listed:
            tell = self._sink.on_model if key[0] == MODELS else self._sink.on_board
            tell(change, self._known[key].object)

    def _free(self, uid: object) -> bool:
        return not any(record.uid == uid for record in self._known.values())

    async def _save(self, key: Key, record: Record) -> None:
        await asyncio.to_thread(self._records.save, key, record)
        self._known[key] = record

    def _versioned(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}

    def _lock(self, key: Key) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())


def _models_first(key: Key) -> tuple[bool, Key]:
    return key[0] != MODELS, key
