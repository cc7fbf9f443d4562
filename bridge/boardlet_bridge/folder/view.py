"""A folder as `kubectl get` would show it: files and records put together, read only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from boardlet_bridge.core.store import Key
from boardlet_bridge.folder.change import KEEP, broken
from boardlet_bridge.folder.document import Document
from boardlet_bridge.folder.kind import kinds, of_plural
from boardlet_bridge.folder.notify import Notify
from boardlet_bridge.folder.problem import Problem
from boardlet_bridge.folder.record import Record, Records, with_words
from boardlet_bridge.folder.source import Source, title

UNREAD: Final = "the bridge has not read this yet; a bridge that runs does at once"


@dataclass(frozen=True, slots=True)
class Item:
    """One object, what is known of it, and where somebody wrote it ("" if its document is gone)."""

    key: Key
    object: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    file: str


class View:
    """The folder `root` as it was when it was last looked at; raises OSError where it is not there."""

    def __init__(self, root: Path) -> None:
        self._root, self._records, self._source = root, Records(root), Source(root)
        self.look()

    def look(self) -> None:
        """Look again; what has not changed is not read again."""
        if not self._root.is_dir():
            raise FileNotFoundError(2, "there is no such folder", str(self._root))
        problems: list[Problem] = []

        def bad(file: str, why: str) -> None:
            problems.append(Problem(file, 0, "", f"cannot be read: {why}", "a bridge that starts writes it anew"))

        self._source.look()
        records = dict(self._records.load(bad))
        found = self._source.found({key: record.file for key, record in records.items()})
        problems += found.problems
        self.items: dict[Key, Item] = {}
        for key in sorted(found.objects.keys() | records.keys()):
            document, record = found.objects.get(key), records.get(key)
            obj, refused = _shown(key, document, record)
            if document is not None:
                problems += [Problem(document.file, document.line, title(key), rule, KEEP) for rule in refused]
            events = tuple(record.events) if record else ()
            self.items[key] = Item(key, obj, events, document.file if document else "")
        self.problems = tuple(problems)

    @property
    def served(self) -> bool:
        """Whether a bridge serves the folder now."""
        return self._records.served


async def changes(root: Path) -> AsyncIterator[None]:
    """One item at once, and one whenever files or records may have changed; several changes fall together."""
    changed = asyncio.Event()

    async def hear(notify: Notify) -> None:
        while True:
            names = await notify.changed()
            if names is None:
                notify.follow(_folders(root))
            elif all(os.path.basename(name).startswith(".") for name in names):
                continue  # of a file that is on its way to its place
            changed.set()

    with Notify(root) as notify:
        notify.follow(_folders(root))
        hearing = asyncio.create_task(hear(notify))
        try:
            yield
            while True:
                await changed.wait()
                changed.clear()
                yield
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


def _folders(root: Path) -> list[Path]:
    found = []
    for path, folders, _ in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") or (path == str(root) and name == ".status")]
        found.append(Path(path))
    return found


def _shown(key: Key, document: Document | None, record: Record | None) -> tuple[Mapping[str, Any], list[str]]:
    if document is None:
        assert record is not None, "it is in one of the two"
        return record.object, []
    if record is None:
        made = {k: document.object[k] for k in ("apiVersion", "kind", "spec")}
        meta = with_words({"name": key[2], "namespace": key[1], "generation": 1}, document.object["metadata"])
        return _unread({**made, "metadata": meta}), []
    spec = document.object["spec"]
    if record.deleting:
        return record.object, []
    refused = broken(of_plural(key[0]).title, spec, record.object["spec"]) if spec != record.object["spec"] else []
    if refused:
        return record.object, refused
    meta = with_words(record.object["metadata"], document.object["metadata"])
    if spec == record.object["spec"]:
        return {**record.object, "metadata": meta}, []
    meta["generation"] += 1
    return _unread({**record.object, "metadata": meta, "spec": spec}), []


def _unread(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    # What the status says is of another spec: it must not pass for an answer to this one.
    status = obj.get("status") or kinds()[obj["kind"]].defaulted(obj).get("status") or {}
    said = []
    for condition in status.get("conditions") or ():
        if condition["type"] in ("Ready", "Synced", "Accepted"):
            condition = {**condition, "status": "Unknown", "reason": "Unread", "message": UNREAD}
        said.append(condition)
    return {**obj, "status": {**status, "conditions": said}}
