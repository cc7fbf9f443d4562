"""What a new version of an object must keep of the one before, and what holds within a Board: the CEL rules of crds/.

A test compares the rules here with those of crds/: none may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

Spec = Mapping[str, Any]

KEEP: Final = (
    "take it back, or remove the object, wait until its status file is gone, and write it anew; until then its last "
    "good version goes on"
)


def broken(kind: str, spec: Spec, old: Spec | None) -> list[str]:
    """The rules that a valid, defaulted spec breaks, `old` being the one before; in the words of crds/."""
    return list(_board(spec, old) if kind == "Board" else _model(spec, old))


def _board(spec: Spec, old: Spec | None) -> Iterator[str]:
    settings, key = spec["settings"], spec["credential"]
    if settings.get("maxOfflineSeconds", settings.get("sleepSeconds", 0)) < settings.get("sleepSeconds", 0):
        yield "spec.settings.maxOfflineSeconds: must be at least sleepSeconds"
    if key["revokedKeyNumber"] < key["keyNumber"] - 1 and key.get("rotation") != "OverTheAir":
        yield (
            "spec.credential.revokedKeyNumber: must be at least keyNumber - 1; a key is changed by revoking it and "
            "flashing the board, or with rotation OverTheAir"
        )
    if old is None:
        return
    if spec["boardID"] != old["boardID"]:
        yield "spec.boardID: must not be changed; a board's id is fixed at flashing"
    before = old["credential"]
    if key["keyNumber"] < before["keyNumber"]:
        yield "spec.credential.keyNumber: must not fall; a number that was used is never used again"
    if key["revokedKeyNumber"] < before["revokedKeyNumber"]:
        yield "spec.credential.revokedKeyNumber: must not fall; what is revoked stays so"


def _model(spec: Spec, old: Spec | None) -> Iterator[str]:
    now = {p["index"]: p for p in spec["properties"]}
    names = {p["name"]: p for p in spec["properties"]}
    reserved = set(spec.get("reservedIndexes") or ())
    if reserved & now.keys():
        yield "spec.properties: must not use an index that is in reservedIndexes"
    for before in (old or {}).get("properties") or ():
        after = now.get(before["index"])
        if after is None:
            if before["index"] not in reserved:
                yield "spec.reservedIndexes: must list the index of every removed property"
        elif (after["name"], after["type"]) != (before["name"], before["type"]):
            yield "spec.properties: must keep the name and type of every index; give a changed property a new index"
        if before["name"] in names:
            yield from _property(f"spec.properties[{before['name']}]", names[before["name"]], before)
    if not set((old or {}).get("reservedIndexes") or ()) <= reserved:
        yield "spec.reservedIndexes: must keep every index that it has"


def _property(path: str, after: Spec, before: Spec) -> Iterator[str]:
    if not _grown(after, before):
        yield f"{path}.values: must keep every word in its place; new ones go to the end"
    if "items" in before:
        items = after.get("items") or {}
        if items.get("type") != before["items"]["type"] or not _grown(items, before["items"]):
            yield f"{path}.items: must keep its type, and every word in its place"
    fields = after.get("fields") or []
    for n, field in enumerate(before.get("fields") or ()):
        same = n < len(fields) and (fields[n]["name"], fields[n]["type"]) == (field["name"], field["type"])
        if not (same and _grown(fields[n], field)):
            yield f"{path}.fields: must keep every field in its place with its type and words; new ones go to the end"
            return


def _grown(after: Spec, before: Spec) -> bool:
    words = list(before.get("values") or ())
    return list(after.get("values") or ())[: len(words)] == words
