"""Objects as kubectl prints them: the columns that a kind declares, YAML, JSON, or what `describe` tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import yaml
from boardlet_bridge.folder.kind import Column, Kind, of_plural
from boardlet_bridge.folder.problem import Problem
from boardlet_bridge.folder.view import Item

STEP: Final = re.compile(r"\.([A-Za-z]\w*)|\[\?\(@\.(\w+)==\"([^\"]*)\"\)\]")
UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def rows(kind: Kind, items: Iterable[Item], wide: bool, everywhere: bool) -> list[list[str]]:
    """A head and a row an object."""
    columns = [c for c in kind.columns if wide or not c.priority]
    table = [["NAMESPACE"] * everywhere + ["NAME", *(c.name for c in columns)]]
    for item in items:
        names = [item.key[1]] * everywhere + [item.key[2]]
        table.append([*names, *(cell(c, item.object) for c in columns)])
    return table


def aligned(table: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """Lines of columns, each as wide as its longest cell, and as `widths` where that is more."""
    table = [[printable(cell) for cell in row] for row in table]
    least = [*widths, *[0] * len(table[0])]
    width = [max(least[n], *(len(row[n]) for row in table)) for n in range(len(table[0]))]
    return ["   ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in table]


def printable(text: str) -> str:
    """The text without power over a terminal: it may be a board's, or whoever's who wrote to the folder."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def cell(column: Column, obj: Mapping[str, Any]) -> str:
    """What stands in this column for an object."""
    value = at(obj, column.path)
    if value is None:
        return ""
    return age(str(value)) if column.type == "date" else str(value)


def at(obj: Any, path: str) -> Any:
    """The value at a path of the few words of JSONPath that our kinds' columns use; None if there is none."""
    for field, key, wanted in STEP.findall(path):
        if field:
            obj = obj.get(field) if isinstance(obj, Mapping) else None
        else:
            obj = next((item for item in obj or () if item.get(key) == wanted), None)
    return obj


def age(since: str) -> str:
    """How long ago that was, in its greatest unit, as kubectl says it."""
    try:
        then = datetime.strptime(since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "<invalid>"
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    return next((f"{seconds // size}{unit}" for size, unit in UNITS if seconds >= 2 * size), f"{seconds}s")


def as_yaml(objects: Sequence[Mapping[str, Any]]) -> str:
    """One object, or a List of several."""
    whole = objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    text: str = yaml.dump(_plain(whole), Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=120)
    return text.rstrip("\n")


def applicable(obj: Mapping[str, Any]) -> dict[str, Any]:
    """What `kubectl apply` takes of an object in any cluster: without what the store says of it."""
    meta = {k: obj["metadata"][k] for k in ("name", "namespace", "labels", "annotations") if k in obj["metadata"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta, "spec": obj["spec"]}


def described(item: Item, problems: Iterable[Problem]) -> str:
    """One object for a person."""
    obj, meta, status = item.object, item.object["metadata"], item.object.get("status") or {}
    lines = [
        f"Name:        {meta['name']}",
        f"Namespace:   {meta['namespace']}",
        f"Kind:        {of_plural(item.key[0]).title}",
        f"File:        {item.file or '<removed>'}",
        f"Labels:      {printable(', '.join(f'{k}={v}' for k, v in (meta.get('labels') or {}).items())) or '<none>'}",
        f"UID:         {meta.get('uid', '<none yet>')}",
        f"Generation:  {meta['generation']} (confirmed: {status.get('observedGeneration', 'none')})",
        "Spec:",
        *_indented(obj["spec"]),
    ]
    rest = {key: value for key, value in status.items() if key not in ("conditions", "observedGeneration")}
    conditions = [[c["type"], c["status"], c["reason"], c["message"]] for c in status.get("conditions") or ()]
    lines += ["Conditions:", *(f"  {line}" for line in aligned([["TYPE", "STATUS", "REASON", "MESSAGE"], *conditions]))]
    if rest:
        lines += ["Status:", *_indented(rest)]
    events = [[e["time"], e["type"], e["reason"], e["message"]] for e in item.events]
    if events:
        lines += ["Events:", *(f"  {line}" for line in aligned([["TIME", "TYPE", "REASON", "MESSAGE"], *events]))]
    said = [f"  {problem}" for problem in problems]
    return "\n".join([*lines, *(["Not taken:", *said] if said else [])])


def as_json(obj: Mapping[str, Any]) -> str:
    """One object on one line."""
    return json.dumps(obj, ensure_ascii=False)


def _indented(value: object) -> list[str]:
    text: str = yaml.dump(_plain(value), Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=116)
    return [f"  {line}" for line in text.splitlines()]


def _plain(value: Any) -> Any:
    # A copy without shared parts, which YAML would write as anchors.
    return json.loads(json.dumps(value))
