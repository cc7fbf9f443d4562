"""A model of the API server for two kinds: versions, generations, finalizers, conflicts, watches, restores.

Objects are never changed in place. What it answers follows Kubernetes where the bridge can tell the difference: a
status is applied whole under uid and resourceVersion, one that changes nothing keeps its version, a deletion with
finalizers marks and raises the generation, a restore brings objects and versions back to what they were.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from boardlet_bridge.kube.client import FINALIZER, Conflict, NotFound

Object = dict[str, Any]
Key = tuple[str, str]  # plural, name
NAMESPACE = "default"


class ApiServer:
    """`watchers` are told every change as (type, plural, object)."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.version = 100
        self.uids = 0
        self.up = True
        self.backups: list[tuple[int, dict[Key, Object]]] = []
        self.watchers: list[Callable[[str, str, Object], None]] = []
        self.wrote: Callable[[Object, Object], None] = lambda before, after: None
        self.restarts = 0

    def _tell(self, change: str, key: Key, obj: Object) -> Object:
        for watcher in list(self.watchers):
            watcher(change, key[0], obj)
        return obj

    def _put(self, key: Key, obj: Object, change: str = "MODIFIED") -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        meta = obj["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self.objects.pop(key, None)
            return self._tell("DELETED", key, obj)
        self.objects[key] = obj
        return self._tell(change, key, obj)

    def create(self, plural: str, name: str, spec: Mapping[str, Any]) -> Object:
        self.uids += 1
        meta = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"{self.uids:08x}-2222-4333-8444-555555555555",
            "generation": 1,
            "creationTimestamp": f"2030-01-01T00:00:{self.uids % 60:02d}Z",
        }
        return self._put((plural, name), {"metadata": meta, "spec": copy.deepcopy(dict(spec))}, "ADDED")

    def edit(self, plural: str, name: str, change: Callable[[Object], None]) -> Object:
        """kubectl edit: the generation rises when the spec changed."""
        before = self.get(plural, name)
        after = copy.deepcopy(before)
        change(after)
        if after == before:
            return before
        after["metadata"]["generation"] += after["spec"] != before["spec"]
        return self._put((plural, name), after)

    def delete(self, plural: str, name: str) -> None:
        after = copy.deepcopy(self.get(plural, name))
        if not after["metadata"].get("deletionTimestamp"):
            after["metadata"]["deletionTimestamp"] = "now"
            after["metadata"]["generation"] += 1
            self._put((plural, name), after)

    def get(self, plural: str, name: str) -> Object:
        if (plural, name) not in self.objects:
            raise NotFound("404")
        return self.objects[plural, name]

    def list(self, plural: str) -> list[Object]:
        return [copy.deepcopy(obj) for key, obj in sorted(self.objects.items()) if key[0] == plural]

    def _checked(self, plural: str, meta: Mapping[str, Any]) -> Object:
        before = self.get(plural, meta["name"])
        if any(before["metadata"][k] != meta[k] for k in ("uid", "resourceVersion")):
            raise Conflict("409")
        return copy.deepcopy(before)

    def apply_status(self, plural: str, body: Mapping[str, Any]) -> Object:
        after = self._checked(plural, body["metadata"])
        before = self.objects[plural, after["metadata"]["name"]]
        after["status"] = copy.deepcopy(dict(body["status"]))
        if plural == "boards":
            self.wrote(before, after)
        return before if after == before else self._put((plural, after["metadata"]["name"]), after)

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> Object:
        after = self._checked("boards", obj["metadata"])
        others = [f for f in obj["metadata"].get("finalizers") or () if f != FINALIZER]
        wanted = [*others, FINALIZER] if present else others
        if (after["metadata"].get("finalizers") or []) == wanted:
            return self.objects["boards", after["metadata"]["name"]]
        after["metadata"]["finalizers"] = wanted
        return self._put(("boards", after["metadata"]["name"]), after)

    def backup(self) -> None:
        self.backups.append((self.version, dict(self.objects)))

    def restore(self, n: int) -> None:
        """etcd comes back from a snapshot; all watches end."""
        self.version, objects = self.backups[n]
        self.objects = dict(objects)
        self.restarts += 1
