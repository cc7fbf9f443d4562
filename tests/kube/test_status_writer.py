"""The status writer against a server that speaks conflicts, overload and outages: the last value always arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from boardlet_bridge.kube import status_writer
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import Conflict, Fenced, KubeClient, NotFound, Rejected, Throttled, Unavailable
from boardlet_bridge.kube.connection import Connection
from boardlet_bridge.kube.status_writer import Key, StatusWriter
from structlog.testing import capture_logs

KEY: Key = ("boards", "default", "g1")


class Server:
    """What the writer talks to; answers as `answers` says, then well."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.written: list[tuple[float, Any]] = []
        self.gets = 0
        self.flying = self.most = 0
        self.slow = 0.0

    async def apply_status(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.slow)
            if self.answers:
                raise self.answers.pop(0)
            self.written.append((asyncio.get_running_loop().time(), body["value"]))
            return dict(body)
        finally:
            self.flying -= 1

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        self.gets += 1
        return {"metadata": {"name": name}}


class World:
    """A writer, its server, and the value that is to be written per key."""

    def __init__(self, server: Server, **limits: Any) -> None:
        self.server = server
        self.values: dict[Key, Any] = {}
        chosen = {"interval_s": 0.2, "writes_per_s": 1000.0, "burst": 1000, **limits}
        budget = Budget(chosen.pop("writes_per_s"), chosen.pop("burst"))
        self.writer = StatusWriter(server, self.snapshot, lambda key, obj: None, budget=budget, **chosen)

    def snapshot(self, key: Key) -> dict[str, Any] | None:
        value = self.values.get(key)
        return None if value is None else {"value": value}

    def mark(self, value: Any, urgent: bool = False, key: Key = KEY) -> None:
        self.values[key] = value
        self.writer.mark(key, urgent)

    async def __aenter__(self) -> World:
        self.task = asyncio.create_task(self.writer.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def idle(self) -> None:
        async with asyncio.timeout(20):
            while self.writer.pending:
                await asyncio.sleep(0.01)


def test_urgent_at_once_values_after_their_interval() -> None:
    """A condition is written at once; values that follow are coalesced into one write after the interval."""

    async def run() -> None:
        async with World(Server()) as world:
            world.mark(1, urgent=True)
            await asyncio.sleep(0.05)
            for value in range(2, 50):
                world.mark(value)
            await world.idle()
            (first, one), (second, last) = world.server.written
            assert (one, last) == (1, 49)
            assert second - first >= 0.1  # of 0.2 from the dispatch of the first, which a busy machine holds up

    asyncio.run(run())


def test_the_value_of_the_moment_of_writing() -> None:
    """What changes while a write waits or flies is what is written, or is written next; two of one key never fly."""

    async def run() -> None:
        server = Server()
        server.slow = 0.05
        async with World(server) as world:
            for value in range(1, 20):
                world.mark(value, urgent=True)
                await asyncio.sleep(0.01)
            await world.idle()
            assert server.written[-1][1] == 19
            assert server.most == 1

    asyncio.run(run())


def test_every_refusal_ends_in_the_last_value() -> None:
    """Conflict, overload, outage and errors of the server delay a write and lose nothing."""

    async def run() -> None:
        server = Server(Conflict("x"), Throttled("x", 0.05), Unavailable("x"), Conflict("x"))
        async with World(server) as world:
            world.mark("last", urgent=True)
            await world.idle()
            assert server.written[-1][1] == "last"
            assert server.gets == 2

    asyncio.run(run())


def test_statuses_go_on_soon_after_the_lease_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long nothing might be written for want of a lease, it does not count as failures of the API server."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        server = Server(*[Fenced("no lease")] * 12)
        async with World(server) as world:
            began = loop.time()
            world.mark(1, urgent=True)
            await world.idle()
            assert [value for _, value in server.written] == [1]
            return loop.time() - began

    monkeypatch.setattr(status_writer, "FENCED_S", 0.02)
    assert asyncio.run(run()) < 5.0


def test_an_object_that_is_gone_is_forgotten() -> None:
    """A 404 ends it; a status that the server will not take is offered again later and disturbs nobody."""

    async def run() -> None:
        async with World(Server(NotFound("x"))) as world:
            world.mark(1, urgent=True)
            await world.idle()
            assert world.server.written == []
        async with World(Server(Rejected("x"))) as world:
            world.mark(1, urgent=True)
            world.mark(2, urgent=True, key=("boards", "default", "g2"))
            async with asyncio.timeout(5):
                while not world.server.written:
                    await asyncio.sleep(0.01)
            assert world.writer.pending == 1

    asyncio.run(run())


def test_the_budget_holds_and_urgent_goes_first() -> None:
    """Beyond its burst the writer keeps to its rate, and conditions overtake values."""

    async def run() -> None:
        async with World(Server(), writes_per_s=50.0, burst=5) as world:
            for n in range(20):
                world.mark(n, key=("boards", "default", f"calm{n}"))
            world.mark("urgent", urgent=True, key=("boards", "default", "u"))
            await world.idle()
            times = [at for at, _ in world.server.written]
            assert times[-1] - times[0] >= (21 - 5 - 1) / 50
            assert "urgent" in [value for _, value in world.server.written[:8]]

    asyncio.run(run())


def test_a_storm_of_conditions_starves_no_value() -> None:
    """While conditions change faster than the budget allows, every fifth write is a value that has waited."""

    async def run() -> None:
        async with World(Server(), writes_per_s=100.0, burst=1) as world:
            for n in range(5):
                world.mark(f"calm{n}", key=("boards", "default", f"calm{n}"))
            for n in range(200):
                world.mark(n, urgent=True, key=("boards", "default", f"u{n % 40}"))
            async with asyncio.timeout(10):
                while len(world.server.written) < 30:
                    world.mark("again", urgent=True, key=("boards", "default", f"u{len(world.server.written)}"))
                    await asyncio.sleep(0.005)
            values = [value for _, value in world.server.written]
            assert [f"calm{n}" for n in range(5)] == [v for v in values if str(v).startswith("calm")]
            assert all(any(str(v).startswith("calm") for v in values[n : n + 5]) for n in range(0, 20, 5))

    asyncio.run(run())


def test_drain_writes_what_waits() -> None:
    """A stopping bridge writes the values that were still waiting for their interval."""

    async def run() -> None:
        world = World(Server(), interval_s=60.0)
        async with world:
            world.mark(1, urgent=True)
            await asyncio.sleep(0.05)
            world.mark(2)
        await world.writer.drain(2.0)
        assert [value for _, value in world.server.written] == [1, 2]

    asyncio.run(run())


def test_drain_leaves_values_to_the_next_replica() -> None:
    """Where another replica serves next, only conditions are written: its boards tell it their values themselves."""

    async def run() -> None:
        world = World(Server(), interval_s=60.0)
        async with world:
            world.mark("first", urgent=True)
            await asyncio.sleep(0.05)
            world.mark("delayed")
        world.mark("calm", key=("boards", "default", "g2"))
        world.mark("condition", urgent=True, key=("boards", "default", "g3"))
        await world.writer.drain(2.0, values=False)
        assert [value for _, value in world.server.written] == ["first", "condition"]
        assert not world.writer.pending

    asyncio.run(run())


def test_drain_finishes_what_is_being_written() -> None:
    """A write that is under way when the bridge stops, even one that has not begun, is finished and not repeated."""

    async def run() -> None:
        server = Server()
        server.slow = 0.1
        async with World(server, interval_s=60.0) as world:
            world.mark("under way", urgent=True)
            await asyncio.sleep(0.01)
            world.mark("not begun", urgent=True, key=("boards", "default", "g2"))
            world.writer._dispatch(asyncio.get_running_loop().time())
            world.task.cancel()
            await asyncio.gather(world.task, return_exceptions=True)
            started = asyncio.get_running_loop().time()
            await world.writer.drain(5)
            assert asyncio.get_running_loop().time() - started < 2
            assert [value for _, value in server.written] == ["under way", "not begun"]
            assert not world.writer.pending

    asyncio.run(run())


def test_no_api_server_is_unavailable() -> None:
    """A connection that is refused is told as Unavailable, with the address."""

    async def run() -> None:
        async with KubeClient(Connection("https://127.0.0.1:1")) as client:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
                await client.get("boards", "default", "x")

    asyncio.run(run())


def test_a_status_that_is_not_taken_leaves_no_old_conditions() -> None:
    """What the API server refuses of a status must not keep the old one standing: its conditions are written alone."""

    class Strict(Server):
        async def apply_status(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]:
            if "reported" in body["status"]:
                raise Rejected("422: status.reported")
            self.written.append((0.0, body["status"]))
            return dict(body)

    async def run() -> None:
        server = Strict()
        conditions = [{"type": "Ready", "status": "Unknown"}]
        body = {"status": {"conditions": conditions, "reported": {"led": True}}}
        writer = StatusWriter(server, lambda key: body, lambda key, obj: None, interval_s=0.2, budget=Budget(9.0, 9))
        task = asyncio.create_task(writer.run())
        writer.mark(KEY, True)
        async with asyncio.timeout(5):
            while not server.written:
                await asyncio.sleep(0.01)
        task.cancel()
        assert [status for _, status in server.written] == [{"conditions": conditions}]
        assert writer.why == "422: status.reported"

    asyncio.run(run())


def test_why_nothing_is_written_is_known_and_said_once() -> None:
    """A right that is missing is told once a cause, not once a try or a board, and that it is there again."""
    denials = [Unavailable(f'403: boards "g{n}" is forbidden') for n in range(4)]

    async def run() -> None:
        async with World(Server(*denials)) as world:
            for n in range(3):
                world.mark(n, urgent=True, key=("boards", "default", f"g{n}"))
            async with asyncio.timeout(5):
                while not world.writer.why:
                    await asyncio.sleep(0.001)
            assert world.writer.why.startswith("403: boards")
            await world.idle()
            assert world.writer.why == ""

    with capture_logs() as said:
        asyncio.run(run())
    assert [line["event"] for line in said] == ["cannot write statuses, will try again", "statuses are written again"]
