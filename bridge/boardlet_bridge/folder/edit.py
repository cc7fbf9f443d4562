"""Sets properties of a Board in the text that somebody wrote, and leaves every other character as it is.

Values are put where the parser says that they stand, so that comments, order and quotes stay; what comes out is parsed
again, and must say exactly what was meant, or nothing is written.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from boardlet_bridge.folder.document import parse

PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
WORDS: Final = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")  # no strings, if they stand bare


class EditRefused(Exception):
    """The text cannot be edited without touching more of it; the message says what to do."""


def set_properties(text: str, namespace: str, name: str, values: Mapping[str, Any], as_json: bool = False) -> str:
    """The text with these values in the properties of one Board; raises EditRefused."""
    meant = _meant(text, namespace, name, values)
    made = text
    for property_name, value in values.items():
        made = _set(made, namespace, name, property_name, value, as_json)
    if [document.object for document in parse(made, "")[0]] != meant:
        raise EditRefused("this part of it is written in a way that only a person can edit: edit the file by hand")
    return made


def _meant(text: str, namespace: str, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    documents, problems = parse(text, "the file")
    if problems:
        raise EditRefused(str(problems[0]))
    meant = [copy.deepcopy(document.object) for document in documents]
    for obj in meant:
        if _is_board(obj, namespace, name):
            obj["spec"]["properties"] = {**(obj["spec"].get("properties") or {}), **values}
            return meant
    raise EditRefused(f"there is no Board {namespace}/{name} in it")


def _is_board(obj: Mapping[str, Any], namespace: str, name: str) -> bool:
    meta = obj.get("metadata") or {}
    return obj.get("kind") == "Board" and (meta.get("namespace") or "default", meta.get("name")) == (namespace, name)


def _set(text: str, namespace: str, name: str, key: str, value: Any, as_json: bool) -> str:
    spec = _spec(text, namespace, name)
    written = json.dumps(value) if as_json else _written(value)
    entry = f"{json.dumps(key) if as_json else key}: {written}"
    properties = _entry(spec, "properties")
    if properties is None:
        wrapped = f'"properties": {{{entry}}}' if as_json else f"properties: {{{entry}}}"
        return _add(text, spec, wrapped)
    if not isinstance(properties, yaml.MappingNode):
        return _replaced(text, properties, f"{{{entry}}}")
    old = _entry(properties, key)
    if old is None:
        return _add(text, properties, entry)
    return _replaced(text, old, written)


def _spec(text: str, namespace: str, name: str) -> yaml.MappingNode:
    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        for node in _objects(document):
            meta = _entry(node, "metadata")
            if not isinstance(meta, yaml.MappingNode) or _text(_entry(node, "kind")) != "Board":
                continue
            if (_text(_entry(meta, "namespace")) or "default", _text(_entry(meta, "name"))) == (namespace, name):
                spec = _entry(node, "spec")
                if isinstance(spec, yaml.MappingNode):
                    return spec
    raise EditRefused(f"there is no Board {namespace}/{name} in it")


def _objects(document: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if isinstance(document, yaml.MappingNode):
        items = _entry(document, "items")
        several = isinstance(items, yaml.SequenceNode) and _text(_entry(document, "kind")) == "List"
        inner = items.value if items is not None and several else ()
        yield from (node for node in (document, *inner) if isinstance(node, yaml.MappingNode))


def _entry(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    found: yaml.Node | None = next((value for name, value in node.value if _text(name) == key), None)
    return found


def _text(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _replaced(text: str, node: yaml.Node, by: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and start == end:
        return f"{text[:start]} {by}{text[end:]}"  # nothing stood behind the colon
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        raise EditRefused("the value is written over several lines: edit the file by hand")
    return text[:start] + by + text[end:]


def _add(text: str, mapping: yaml.MappingNode, entry: str) -> str:
    at = _end(mapping)
    if mapping.flow_style:
        return f"{text[:at]}, {entry}{text[at:]}" if mapping.value else f"{text[: at - 1]}{entry}{text[at - 1 :]}"
    line_end = "\r\n" if "\r\n" in text else "\n"
    indent = " " * mapping.value[0][0].start_mark.column
    if text[at - 1] != "\n":
        at = text.find("\n", at) + 1 or len(text)  # behind a comment on the same line
    before = text[:at] if text[:at].endswith("\n") else text[:at] + line_end
    return f"{before}{indent}{entry}{line_end}{text[at:]}"


def _end(node: yaml.Node) -> int:
    # Where a block ends is told only by what follows it, comments included: so where its last part ends.
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    if isinstance(node, yaml.MappingNode) and node.flow_style and node.value:
        return int(node.value[-1][1].end_mark.index)
    return int(node.end_mark.index)


def _written(value: Any) -> str:
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
