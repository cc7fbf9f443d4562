"""The API's side of a fleet: makes the objects, follows them by one watch, compares them with what boards say."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
from boardlet_bridge.kube.client import GROUP

from .session import Session

MODEL: Final = "fleet"
AT_ONCE: Final = 16
PAGE: Final = 500
AGAIN_S: Final = 0.2
DELETED_S: Final = 60.0
# Five that a user sets and three that boards sense; no drivers, because simulated boards have no pins.
PROPERTIES: Final[list[dict[str, Any]]] = [
    {"name": "led", "index": 0, "type": "Boolean", "access": "ReadWrite", "default": False},
    {"name": "target", "index": 1, "type": "Number", "access": "ReadWrite", "minimum": 5, "maximum": 35, "default": 20},
    {"name": "speed", "index": 2, "type": "Integer", "access": "ReadWrite", "default": 0},
    {"name": "mode", "index": 3, "type": "String", "access": "ReadWrite", "maxLength": 16, "default": "auto"},
    {"name": "fan", "index": 4, "type": "Boolean", "access": "ReadWrite", "default": False},
    {"name": "temp", "index": 5, "type": "Number", "access": "ReadOnly", "unit": "Cel"},
    {"name": "door", "index": 6, "type": "Boolean", "access": "ReadOnly"},
    {"name": "count", "index": 7, "type": "Integer", "access": "ReadOnly"},
]
NAMES: Final = {str(p["index"]): str(p["name"]) for p in PROPERTIES}

State = Mapping[str, tuple[bool, int | None, Mapping[str, Any]]]  # as fleet.control gives it


class Objects(Session):
    """A namespace's Boards as the watch has told them."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        super().__init__(kubeconfig, namespace)
        self.namespace = namespace
        self.seen: dict[str, dict[str, Any]] = {}
        self.ready: set[str] = set()
        """Names whose Ready is True at their present generation."""
        self.events = 0
        self._changed = asyncio.Event()

    async def _follow(self, started: asyncio.Event) -> None:
        while True:
            try:
                async with self._events() as lines:
                    await self.relist()
                    started.set()
                    async for line in lines:
                        self._told(json.loads(line))
            except aiohttp.ClientError:
                await asyncio.sleep(AGAIN_S)  # the API server is being restarted

    def _told(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "DELETED":
            self.seen.pop(event["object"]["metadata"]["name"], None)
            self._changed.set()
        else:
            self._take(event["object"])

    async def relist(self) -> None:
        """Read all objects anew."""
        token = ""
        while True:
            async with self._session.get(f"{self._path}/boards?limit={PAGE}&continue={token}") as answer:
                answer.raise_for_status()
                page = await answer.json()
            for obj in page["items"]:
                self._take(obj)
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    def _take(self, obj: dict[str, Any]) -> None:
        name = obj["metadata"]["name"]
        before = self.seen.get(name)
        if before is not None and int(before["metadata"]["resourceVersion"]) >= int(obj["metadata"]["resourceVersion"]):
            return
        obj["metadata"].pop("managedFields", None)
        self.seen[name] = obj
        self.events += 1
        (self.ready.add if is_ready(obj) else self.ready.discard)(name)
        self._changed.set()

    async def until(self, true: Callable[[], bool], within_s: float) -> float:
        """Seconds until `true`, looked at whenever an object changes and twice a second; raises TimeoutError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not true():
            left = began + within_s - loop.time()
            if left <= 0:
                raise TimeoutError(f"not so after {within_s:.0f} s: {len(self.ready)} of {len(self.seen)} are Ready")
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, 0.5))
        return loop.time() - began

    async def create(self, ids: Iterable[str]) -> None:
        """The model, and a Board named as its id for each."""
        await self._post("boardmodels", "BoardModel", MODEL, {"properties": PROPERTIES})
        await self.add(ids)

    async def add(self, ids: Iterable[str]) -> None:
        """A Board named as its id for each, of the model that is there."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with slots:
                await self._post("boards", "Board", name, {"boardID": name, "modelRef": {"name": MODEL}})

        await asyncio.gather(*(one(name) for name in ids))

    async def _post(self, plural: str, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        meta = {"name": name, "namespace": self.namespace}
        body = {"apiVersion": GROUP, "kind": kind, "metadata": meta, "spec": spec}
        await self._send("POST", plural, body, "application/json")

    async def delete(self) -> None:
        """Delete all Boards; returns when they are gone, which the bridge has to allow."""
        async with self._session.delete(f"{self._path}/boards") as answer:
            answer.raise_for_status()
        await self.until(lambda: not self.seen, DELETED_S)

    async def patch(self, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Edit a Board's properties; returns the object."""
        body = {"spec": {"properties": properties}}
        answer = await self._send("PATCH", f"boards/{name}", body, "application/merge-patch+json")
        found: dict[str, Any] = json.loads(answer)
        return found

    async def text(self, path: str) -> str:
        """What the API server answers to a GET."""
        async with self._session.get(self._server + path) as answer:
            return await answer.text()

    def differences(self, state: State) -> list[str]:
        """What any object says that its board does not, property by property."""
        found = []
        for name, (up, generation, values) in state.items():
            obj = self.seen[name]
            status = obj.get("status") or {}
            if is_ready(obj) is not up:
                found.append(f"{name}: connected {up}, Ready {is_ready(obj)}")
            if up and not generation == status.get("observedGeneration") == obj["metadata"]["generation"]:
                found.append(f"{name}: generation {generation}, object {obj['metadata']['generation']}")
            reported = status.get("reported") or {}
            said = {NAMES[index]: value for index, value in values.items()}
            found += [
                f"{name}.{p}: {said.get(p)!r}, object {reported.get(p)!r}"
                for p in {*said, *reported}
                if said.get(p) != reported.get(p)
            ]
        return found


def condition(obj: Mapping[str, Any], type_: str) -> tuple[str, str]:
    """Status and reason of a condition, "" where there is none."""
    for c in (obj.get("status") or {}).get("conditions") or ():
        if c["type"] == type_:
            return c["status"], c["reason"]
    return "", ""


def is_ready(obj: Mapping[str, Any]) -> bool:
    """Whether the object says that its board runs its present generation."""
    observed = (obj.get("status") or {}).get("observedGeneration")
    return condition(obj, "Ready")[0] == "True" and observed == obj["metadata"]["generation"]
