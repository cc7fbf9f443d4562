"""A file to its documents, read as kubectl does: dates stay strings, a key stands once, a List is its items."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from boardlet_bridge.folder.problem import Problem, cut

MAX_FILE_BYTES: Final = 4 * 1024 * 1024  # some 10,000 Boards
MAX_VALUES: Final = 1_000_000  # aliases and merges of aliases make a file of any size out of a small one
MAX_DEPTH: Final = 100  # libyaml composes by recursion, and ends the process where the stack ends
MAX_INTEGER: Final = 2**63 - 1  # of Kubernetes
SUFFIXES: Final = (".yaml", ".yml", ".json")  # those that kubectl takes from a folder
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_MEND: Final = "mend the file; until then what was last read from it goes on"


@dataclass(frozen=True, slots=True)
class Document:
    """One object as somebody wrote it; `file` is relative to the folder, `line` counts from 1."""

    file: str
    line: int
    object: dict[str, Any]


class _Loader(_BASE):  # type: ignore[misc]
    """YAML as Kubernetes reads it: no dates, no numbers to the base 60."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands here twice", key.start_mark
                    )
                seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # `<<` copies what it names, nine times nine times nine: counted before it is done.
        for key, value in node.value:
            for one in (value.value if isinstance(value, yaml.SequenceNode) else [value]) if key.tag == _MERGE else ():
                if isinstance(one, yaml.MappingNode):
                    self.flatten_mapping(one)
                    self.merged = getattr(self, "merged", 0) + len(one.value)
                    if self.merged > MAX_VALUES:
                        raise ValueError(f"has more than {MAX_VALUES} values, counting each merge")
        super().flatten_mapping(node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":int", ":float"))]
    for first, resolvers in _BASE.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def _number(loader: Any, node: yaml.ScalarNode) -> int | float:
    # 2.0 is 2 for who writes JSON in Go, and so for an API server: a whole number may be written so.
    value = float(loader.construct_yaml_float(node))
    return int(value) if value.is_integer() and abs(value) <= MAX_INTEGER else value


_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def read(path: Path, file: str) -> tuple[list[Document], list[Problem]]:
    """The documents of a file, and what is wrong with it; raises FileNotFoundError."""
    if not file.isprintable():
        return [], [Problem(shown(file), 0, "", "its name is no printable UTF-8", "rename it")]
    try:
        data = _content(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return [], [Problem(file, 0, "", f"cannot be read: {error.strerror}", "let the bridge's user read it")]
    if data is None:
        return [], [Problem(file, 0, "", "is no file, but a device or a pipe", "remove it, or the link to it")]
    if len(data) > MAX_FILE_BYTES:
        return [], [Problem(file, 0, "", f"is larger than {MAX_FILE_BYTES} bytes", "part it into several files")]
    try:
        return parse(data.decode(), file)
    except UnicodeDecodeError as error:
        return [], [Problem(file, 0, "", f"is no UTF-8: {error}", _MEND)]


def shown(file: str) -> str:
    """A file's name as it can be written in a log and a file, whatever bytes it is made of."""
    return file if file.isprintable() else ascii(file)[1:-1]


def _content(path: Path) -> bytes | None:
    # At most one byte more than is read; None where a link, as Git keeps them, leads to a device: some have no end, and
    # some must not even be opened.
    if not stat.S_ISREG(os.stat(path).st_mode):
        return None
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as source:
        return source.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else None


def parse(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """The documents of a text: all of them, or none where it is no YAML."""
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        for line, value in _values(text):
            for obj in _items(value):
                if isinstance(obj, dict):
                    documents.append(Document(file, line, obj))
                elif obj is not None:
                    cause = f"this document is {_kind(obj)}, and no object"
                    problems.append(Problem(file, line, "", cause, "write apiVersion, kind, metadata and spec"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error)
        return [], [Problem(file, mark.line + 1 if mark else 0, "", cut(f"is no YAML: {said}"), _MEND)]
    except (ValueError, RecursionError) as error:
        return [], [Problem(file, 0, "", cut(str(error) or "is nested too deeply"), _MEND)]
    return documents, problems


def _values(text: str) -> Iterator[tuple[int, Any]]:
    _shallow(text)
    loader = _Loader(text)
    try:
        left = [MAX_VALUES]
        while loader.check_node():
            node = loader.get_node()
            try:
                value = loader.construct_document(node)
            except (AttributeError, LookupError, TypeError) as error:
                # PyYAML's constructors fall over what an explicit tag does not fit, as `!!bool perhaps`.
                cause = "a value is not what its tag (!!) says"
                raise yaml.constructor.ConstructorError(None, None, cause, node.start_mark) from error
            _plain(value, left)
            yield node.start_mark.line + 1, value
    finally:
        loader.dispose()


def _shallow(text: str) -> None:
    # Raises ComposerError for what is nested too deeply to be composed.
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark
                raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _plain(value: Any, left: list[int]) -> None:
    # What JSON can say, and no more of it than a file of this size should.
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"has more than {MAX_VALUES} values, counting each alias")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is {_kind(key)}, and must be a string: put it in quotes")
            _plain(inner, left)
    elif isinstance(value, list):
        for inner in value:
            _plain(inner, left)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{value!r:.100} is {_kind(value)}, which JSON cannot say: put it in quotes")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError(f"an integer is beyond {MAX_INTEGER}, which Kubernetes does not take")
    elif isinstance(value, float) and (value != value or abs(value) == float("inf")):
        raise ValueError(f"{value} is no number that JSON can say")


def _items(value: Any) -> list[Any]:
    # `kubectl get -o yaml` of several objects is a List of them.
    if isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list):
        return list(value["items"])
    return [value]


def _kind(value: object) -> str:
    names = {bool: "a boolean", str: "a string", list: "a list", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
