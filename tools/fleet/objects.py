"""The two objects of a trial, as its pod's account may see and change them at the API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from boardlet_bridge.kube.client import GROUP
from boardlet_bridge.kube.connection import Connection

STEP_S: Final = 45.0
Holds = Callable[[dict[str, Any]], bool]


class TrialFailed(Exception):
    """Something did not hold; the message says what, and what to do next."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The trial's BoardModel and Board, both named `name`; nothing that it asks needs a right to any other."""

    server: Connection
    session: aiohttp.ClientSession
    namespace: str
    name: str
    step_s: float = STEP_S

    def _url(self, plural: str, rest: str = "") -> str:
        return f"{self.server.server}/apis/{GROUP}/namespaces/{self.namespace}/{plural}{rest}"

    def _headers(self, content: str = "application/json") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.bearer()}", "Content-Type": content}

    async def create(self, plural: str, spec: dict[str, Any]) -> None:
        """Make one of the two; raises TrialFailed with the API server's words."""
        kind = {"boards": "Board", "boardmodels": "BoardModel"}[plural]
        body = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": self.name}, "spec": spec}
        await self._ask("POST", self._url(plural), body)

    async def edit(self, properties: dict[str, Any]) -> int:
        """Change the Board's properties, as `kubectl patch` does; returns the generation."""
        content = "application/merge-patch+json"
        body = {"spec": {"properties": properties}}
        made = await self._ask("PATCH", self._url("boards", f"/{self.name}"), body, content)
        return int(made["metadata"]["generation"])

    async def clear(self) -> None:
        """Have neither, the Board first: the bridge empties its mailbox before it goes."""
        for plural in ("boards", "boardmodels"):
            if await self._ask("DELETE", self._url(plural, f"/{self.name}"), missing_ok=True):
                await self.until(lambda obj: not obj, "be gone", plural)

    async def until(self, true: Holds, what: str, plural: str = "boards") -> dict[str, Any]:
        """The object once `true` of it, by a watch; {} stands for none. Raises TrialFailed after `step_s`."""
        seen: dict[str, Any] = {}
        try:
            async with asyncio.timeout(self.step_s):
                while True:  # a watch may end at any time
                    async for seen in self._watch(plural):
                        if true(seen):
                            return seen
        except TimeoutError as error:
            raise TrialFailed(
                f"{plural[:-1]} {self.name} did not {what} in {self.step_s:.0f} s: {_state(seen)}"
            ) from error

    async def _watch(self, plural: str) -> AsyncIterator[dict[str, Any]]:
        # By name, as the account may see nothing else: what is there, {} for nothing, then what becomes of it.
        url = self._url(plural, f"?fieldSelector=metadata.name%3D{self.name}")
        found = await self._ask("GET", url)
        yield found["items"][0] if found["items"] else {}
        url += f"&watch=true&resourceVersion={found['metadata']['resourceVersion']}"
        async with self.session.get(url, headers=self._headers(), timeout=aiohttp.ClientTimeout()) as answer:
            if answer.status >= 300:
                raise TrialFailed(f"watching {plural}: {_words(await answer.text())}")
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":  # as after too long a time: the next watch begins anew
                    return
                yield {} if event["type"] == "DELETED" else event["object"]

    async def _ask(
        self,
        method: str,
        url: str,
        body: dict[str, Any] | None = None,
        content: str = "application/json",
        *,
        missing_ok: bool = False,
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, url, data=data, headers=self._headers(content)) as answer:
            text = await answer.text()
        if missing_ok and answer.status == 404:
            return {}
        if answer.status >= 300:
            raise TrialFailed(f"{method} {url}: {_words(text)}")
        made: dict[str, Any] = json.loads(text)
        return made


def _words(text: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["message"])
    return text[:500]


def _state(obj: dict[str, Any]) -> str:
    conditions = obj.get("status", {}).get("conditions", ())
    wrong = [f"{c['type']}={c['status']} {c['reason']} ({c['message']})" for c in conditions if c["status"] != "True"]
    return "; ".join(wrong) or ("it has no status: does the bridge serve this namespace?" if obj else "there is none")


def is_synced(generation: int, **values: Any) -> Holds:
    """Whether a Board is Ready at this generation and its board has reported these values."""

    def true(obj: dict[str, Any]) -> bool:
        status = obj.get("status") or {}
        ready = [c for c in status.get("conditions", ()) if c["type"] == "Ready" and c["status"] == "True"]
        reported = status.get("reported") or {}
        return (
            bool(ready)
            and status.get("observedGeneration") == ready[0].get("observedGeneration") == generation
            and all(reported.get(name) == value for name, value in values.items())
        )

    return true
