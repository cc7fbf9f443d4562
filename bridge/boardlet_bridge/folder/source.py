"""The files of the folder, and which objects they name. Blocking: to be called in a thread.

What counts is what there is when somebody looks, never what an event said. A file is read again when it is named, or
when its stat has changed since; files and folders whose names begin with a dot are nobody's objects (Git's, editors').
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from boardlet_bridge.core.model import compile_model
from boardlet_bridge.core.store import Key
from boardlet_bridge.core.value import ModelError
from boardlet_bridge.folder.change import broken
from boardlet_bridge.folder.document import SUFFIXES, Document, read
from boardlet_bridge.folder.kind import kinds, named, of_plural
from boardlet_bridge.folder.problem import Problem, cut

Stat = tuple[int, int, int, int]

# Two writes within one tick of the file system's clock look alike: what is so young is not trusted to be unchanged.
YOUNG_NS: Final = 50_000_000
ABSENT: Final[Stat] = (0, 0, 0, 0)
DELETED: Final = "remove the document, or, to have the object again, take uid and deletionTimestamp out of it"
WAY: Final = "mend it; until then its last good version goes on, if there was one"


@dataclass(frozen=True, slots=True)
class Found:
    """What the folder says now: good objects, what is wrong, and which files are not wholly good."""

    objects: Mapping[Key, Document]
    problems: tuple[Problem, ...]
    spoiled: frozenset[str]


@dataclass(slots=True)
class _File:
    stat: Stat
    documents: list[tuple[Key, Document]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Source:
    """The files under `root`; only objects of `namespaces` are looked at, of all where it is empty."""

    def __init__(self, root: Path, namespaces: Iterable[str] = ()) -> None:
        self.root = root
        self._namespaces = frozenset(namespaces)
        self._files: dict[str, _File] = {}

    def look(self, names: Iterable[str] | None = None) -> None:
        """Read these files (relative names), or whatever has changed in the whole folder; raises OSError."""
        if names is None:
            present = set(self._walk())
            for gone in self._files.keys() - present:
                del self._files[gone]
            names = [name for name in present if self._changed(name)]
        for name in names:
            self._read(name)

    def folders(self) -> list[Path]:
        """Every folder that can hold files, the root first; raises OSError where that is not there."""
        return [path for path, _ in self._tree()]

    def found(self, served: Mapping[Key, str]) -> Found:
        """What there is; of two documents of one name that in the file of `served` counts, else the first."""
        candidates: dict[Key, list[Document]] = {}
        problems: list[Problem] = []
        for name in sorted(self._files):
            problems += self._files[name].problems
            for key, document in self._files[name].documents:
                candidates.setdefault(key, []).append(document)
        objects = {}
        for key, documents in candidates.items():
            chosen = next((d for d in documents if d.file == served.get(key)), documents[0])
            objects[key] = chosen
            for other in documents:
                if other is not chosen:
                    cause = f"stands in {chosen.file}:{chosen.line} too, which is the one that counts"
                    problems.append(Problem(other.file, other.line, title(key), cause, "remove one, or rename it"))
        return Found(objects, tuple(problems), frozenset(p.file for p in problems))

    def _changed(self, name: str) -> bool:
        known = self._files.get(name)
        stat = _stat(self.root / name)
        return known is None or stat != known.stat or time.time_ns() - max(stat[0], stat[1]) < YOUNG_NS

    def _read(self, name: str) -> None:
        stat = _stat(self.root / name)
        try:
            documents, problems = read(self.root / name, name)
        except FileNotFoundError:
            self._files.pop(name, None)
            return
        file = self._files[name] = _File(stat, problems=problems)
        for document in documents:
            self._take(file, document)

    def _take(self, file: _File, document: Document) -> None:
        obj = document.object
        kind = kinds().get(str(obj.get("kind")))
        where = named(obj)
        about = f"{obj.get('kind')} {'/'.join(where)}" if isinstance(where, tuple) else str(obj.get("kind") or "")
        about = about if kind else cut(about)

        def refuse(cause: str, then: str = WAY) -> None:
            file.problems.append(Problem(document.file, document.line, about, cut(cause), then))

        if kind is None:
            return refuse(f"its kind is none of {', '.join(kinds())}", "keep other objects elsewhere, or mend kind")
        if obj.get("apiVersion") != kind.api_version:
            return refuse(f"apiVersion: must be {kind.api_version}, is {obj.get('apiVersion')!r}")
        if isinstance(where, str):
            return refuse(where)
        if self._namespaces and where[0] not in self._namespaces:
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return refuse("metadata.deletionTimestamp: it was being deleted where it comes from", DELETED)
        made = kind.defaulted(obj)
        mistakes = kind.mistakes(made) or broken(kind.title, made["spec"], None) or _uncompiled(kind.title, made)
        for mistake in mistakes:
            refuse(mistake)
        if not mistakes:
            file.documents.append(((kind.plural, *where), Document(document.file, document.line, made)))
        return None

    def _walk(self) -> Iterator[str]:
        for path, names in self._tree():
            for name in names:
                yield str((path / name).relative_to(self.root))

    def _tree(self) -> Iterator[tuple[Path, list[str]]]:
        def failed(error: OSError) -> None:
            if error.filename == str(self.root):
                raise error

        for path, folders, names in os.walk(self.root, onerror=failed):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield Path(path), [name for name in names if ours(name)]


def ours(name: str) -> bool:
    """Whether a file of this name can hold objects."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def title(key: Key) -> str:
    """An object as people name it."""
    return f"{of_plural(key[0]).title} {key[1]}/{key[2]}"


def _stat(path: Path) -> Stat:
    try:
        stat = path.stat()
    except OSError:
        return ABSENT
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def _uncompiled(kind: str, obj: Mapping[str, Any]) -> list[str]:
    # What CEL says of a model in a cluster, its compiler says here.
    if kind != "BoardModel":
        return []
    try:
        compile_model(obj["metadata"]["name"], obj["spec"])
    except ModelError as error:
        return [str(error)]
    return []
