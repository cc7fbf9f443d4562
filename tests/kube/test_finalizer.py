"""Finalizers against a server that speaks conflicts and outages: every wish is met, and none twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import Conflict, KubeClient, NotFound, Unavailable
from boardlet_bridge.kube.finalizer import IN_FLIGHT, Finalizers


class Server:
    """Boards by name; each write fails first as `answers` says."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.objects: dict[str, dict[str, Any]] = {}
        self.flying = self.most = 0

    def make(self, name: str, **meta: Any) -> dict[str, Any]:
        made = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "1", **meta}
        self.objects[name] = {"metadata": made}
        return {"metadata": dict(made)}

    async def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> dict[str, Any]:
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0)
        self.flying -= 1
        if self.answers:
            raise self.answers.pop(0)
        there = await self.get("boards", "default", obj["metadata"]["name"])
        if there["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict("409")
        there["metadata"]["finalizers"] = ["boardlet.dev/mailbox"] if present else []
        return there

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        if name not in self.objects:
            raise NotFound("404")
        return self.objects[name]


def meet(server: Server, *wishes: tuple[dict[str, Any], bool]) -> list[str]:
    """What became of these wishes: the names that the server answered."""
    seen: list[str] = []

    async def run() -> None:
        client = cast(KubeClient, server)
        finalizers = Finalizers(client, lambda obj: seen.append(obj["metadata"]["name"]), Budget(1000, 1000))
        for obj, present in wishes:
            finalizers.want(obj, present)
        await asyncio.sleep(0.5)
        await finalizers.stop()

    asyncio.run(run())
    return seen


def test_a_conflict_is_overcome() -> None:
    """A wish that a status of our own overtook is met on the object as it is now, though nobody wishes it again."""
    server = Server()
    obj = server.make("g", finalizers=["boardlet.dev/mailbox"])
    server.objects["g"]["metadata"]["resourceVersion"] = "2"
    assert meet(server, (obj, False)) == ["g"]
    assert server.objects["g"]["metadata"]["finalizers"] == []


def test_an_outage_is_overcome() -> None:
    """A wish that the API server could not take is tried again."""
    server = Server(Unavailable("503"))
    assert meet(server, (server.make("g"), True)) == ["g"]


def test_nothing_is_added_to_what_is_being_deleted() -> None:
    """To an object that began to be deleted meanwhile no finalizer is added; the API server would refuse it."""
    server = Server()
    obj = server.make("g")
    server.objects["g"]["metadata"] |= {"resourceVersion": "2", "deletionTimestamp": "now"}
    assert meet(server, (obj, True)) == []


def test_another_object_of_the_name_is_left_alone() -> None:
    """A wish for an object that was deleted and made anew is not met on the new one."""
    server = Server()
    obj = server.make("g")
    server.make("g", uid="another", resourceVersion="2")
    assert meet(server, (obj, True)) == []


def test_many_wishes_are_few_writes_at_a_time() -> None:
    """A thousand new Boards at once are a handful of requests at once."""
    server = Server()
    assert len(meet(server, *((server.make(f"g{n}"), True) for n in range(500)))) == 500
    assert server.most <= IN_FLIGHT
