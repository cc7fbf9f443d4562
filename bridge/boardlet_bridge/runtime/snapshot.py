"""The status that is due for an object, as the status writer asks for it when the object's turn comes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from boardlet_wire.topic import bucket

from boardlet_bridge.core.status import model_snapshot, snapshot
from boardlet_bridge.core.store import Key
from boardlet_bridge.runtime.registry import MODELS, REWOUND, Registry


def due(registry: Registry, key: Key) -> dict[str, Any] | None:
    """The body of the status write that is due for a key now; None where nothing has to be written."""
    kind, name = key[0], (key[1], key[2])
    entry = None
    if kind == MODELS:
        obj = registry.models.objects.get(name)
        status = None if obj is None else model_snapshot(registry.models.seen(name), obj, rfc3339())
    else:
        entry = registry.entries.get(name)
        if entry is None or not entry.board.shown:
            return None  # a mark of before it was met; what it comes to show is marked then
        obj = entry.object
        status = snapshot(entry.board, entry.object.get("status") or {}, rfc3339())
    if obj is None or status is None or bare(status) == bare(obj.get("status")):
        return None
    if (entry.bucket if entry else bucket("/".join(name))) not in registry.held:
        return None
    meta = obj["metadata"]
    if meta["resourceVersion"] == REWOUND:
        return None  # it is being read anew, and marked again then
    if entry is not None:
        entry.sent = bare(status)
    kept = {k: meta[k] for k in ("name", "namespace", "uid", "resourceVersion")}
    title = "BoardModel" if kind == MODELS else "Board"
    return {"apiVersion": "boardlet.dev/v1alpha1", "kind": title, "metadata": kept, "status": status}


def bare(status: Mapping[str, Any] | None) -> dict[str, Any]:
    """A status without empty maps, which the API server puts in or leaves out as it likes."""
    return {name: value for name, value in (status or {}).items() if value != {}}


def rfc3339() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
