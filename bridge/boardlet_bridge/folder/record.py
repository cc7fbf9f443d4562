"""What the folder's store remembers of each object, as an API server does: one file each, whole, in `.status`.

A record is the object as `kubectl get -o yaml` would show it: uid, generation and resourceVersion, the spec that was
last good, the status. It is the status that people read, and the memory that a restart needs; its name does not end in
.yaml, so that `kubectl apply -R -f FOLDER` applies what people wrote and not this.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from boardlet_bridge.core.board import FINALIZER
from boardlet_bridge.core.store import Key
from boardlet_bridge.folder.file import remove, replace
from boardlet_bridge.folder.kind import kinds

STATUS: Final = ".status"
SUFFIX: Final = ".status"
LOCK: Final = "lock"
PATIENCE_S: Final = 0.3  # a command that looks whether a bridge serves the folder has the lock for a moment
IGNORE: Final = "# Written by the Boardlet bridge: what it knows, not what anybody wants.\n*\n"
WORDS: Final = ("labels", "annotations")  # of an object's metadata what people write
MAX_EVENTS: Final = 10
MAX_WHY: Final = 200
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class InUse(Exception):
    """Another bridge serves this folder."""


@dataclass(slots=True)
class Record:
    """One object as the store has it; `file` is where somebody wrote it, relative to the folder."""

    object: Mapping[str, Any]
    file: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    @property
    def deleting(self) -> bool:
        return bool(self.object["metadata"].get("deletionTimestamp"))


class Records:
    """The records of the folder `root`, on disk. Blocking: to be called in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / STATUS
        self._read: dict[Path, tuple[tuple[int, int], Record]] = {}

    def prepare(self) -> None:
        """Have the folder, and Git leave it alone; raises OSError."""
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / ".gitignore").exists():
            replace(self.folder / ".gitignore", IGNORE)
        for unfinished in self.folder.glob(f"*/*/.*{SUFFIX}.*"):
            unfinished.unlink(missing_ok=True)  # of a process that was killed

    def lock(self) -> int:
        """Be the one bridge here, until the handle that is returned is closed; raises InUse, OSError."""
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except OSError as error:
                if time.monotonic() >= until:
                    os.close(handle)
                    raise InUse(f"another bridge serves {self.root}: stop one of them") from error
                time.sleep(PATIENCE_S / 10)

    @property
    def served(self) -> bool:
        """Whether a bridge holds the lock now."""
        try:
            handle = os.open(self.folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def path(self, key: Key) -> Path:
        """Where the record of this object is."""
        return self.folder / key[1] / key[0] / f"{key[2]}{SUFFIX}"

    def load(self, bad: Callable[[str, str], None]) -> Iterator[tuple[Key, Record]]:
        """Every record that can be read; `bad` is told the others and why, and they are as if they were not there."""
        plurals = {kind.plural for kind in kinds().values()}  # another release may have left others
        for path in sorted(p for p in self.folder.glob(f"*/*/*{SUFFIX}") if p.parent.name in plurals):
            key = path.parent.name, path.parent.parent.name, path.name.removesuffix(SUFFIX)
            try:
                yield key, self._decoded(path)
            except FileNotFoundError:
                continue  # its object was deleted meanwhile
            except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
                bad(str(path.relative_to(self.root)), " ".join(str(error).split())[:MAX_WHY])

    def _decoded(self, path: Path) -> Record:
        # A record is only ever put in place whole: the same inode and time is the same record.
        stat = path.stat()
        version = stat.st_ino, stat.st_mtime_ns
        if self._read.get(path, (None,))[0] != version:
            self._read[path] = version, _decode(path.read_text(encoding="utf-8"))
        return self._read[path][1]

    def save(self, key: Key, record: Record) -> None:
        """Write a record, whole; raises OSError."""
        path = self.path(key)
        if not path.parent.is_dir():
            # The status folder itself is not made here: where it is not, the disk may not be mounted.
            path.parent.parent.mkdir(exist_ok=True)
            path.parent.mkdir(exist_ok=True)
        replace(path, _encode(record))

    def drop(self, key: Key) -> None:
        """Forget a record; raises OSError."""
        remove(self.path(key))


def new_meta(wanted: Mapping[str, Any], taken: bool) -> dict[str, Any]:
    """The metadata that the store keeps of an object that it has not met.

    An object that comes from a cluster brings its uid and generation, and stays the same object for its board; not so
    a copy of one that is here already (`taken`).
    """
    uid, generation = wanted.get("uid"), wanted.get("generation")
    came = not taken and is_uid(uid)
    known = came and type(generation) is int and generation > 0
    created = wanted.get("creationTimestamp")
    return {
        "uid": uid if came else str(uuid.uuid4()),
        "generation": generation if known else 1,
        "creationTimestamp": created if came and isinstance(created, str) else wall(),
    }


def with_words(meta: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with the labels and annotations that a document wants, and no others."""
    said = {name: dict(wanted[name]) for name in WORDS if wanted.get(name)}
    return {name: value for name, value in meta.items() if name not in WORDS} | said


def is_uid(text: object) -> bool:
    """Whether this is a uid as Kubernetes writes it."""
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def wall() -> str:
    """The present time as RFC 3339."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encode(record: Record) -> str:
    body = {**record.object, "file": record.file}
    if record.events:
        body["events"] = list(record.events)
    head = f"# Written by the Boardlet bridge. What is wanted is in {record.file}.\n"
    text: str = yaml.dump(body, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=120)
    return head + text


def _decode(text: str) -> Record:
    obj = yaml.load(text, Loader=_LOADER)
    if not isinstance(obj, dict):
        raise ValueError("it holds no object")
    file, events = obj.pop("file"), obj.pop("events", [])
    meta = obj["metadata"]
    if not (is_uid(meta["uid"]) and type(meta["generation"]) is int and str(meta["resourceVersion"]).isdigit()):
        raise ValueError("its metadata is not what the bridge wrote")
    if not isinstance(obj["spec"], dict):
        raise ValueError("it has no spec")
    if obj["kind"] == "Board":
        meta["finalizers"] = [FINALIZER]
    return Record(obj, str(file), list(events))
