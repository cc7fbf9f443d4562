"""Events under load: counted in series, within budgets, dropped rather than in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.kube.client import NotFound, Rejected, Unavailable
from boardlet_bridge.kube.notice import MAX_WAITING, NoticeWriter
from waiting import until


class Server:
    """Keeps Events as an API server does; answers as `answers` says first."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.events: dict[str, dict[str, Any]] = {}
        self.requests = 0

    def _answer(self) -> None:
        self.requests += 1
        if self.answers:
            raise self.answers.pop(0)

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        self._answer()
        assert body["metadata"]["name"] not in self.events
        self.events[body["metadata"]["name"]] = dict(body)

    async def patch_event(self, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        self._answer()
        if name not in self.events:
            raise NotFound("404")
        self.events[name] |= body

    def counts(self) -> dict[str, int]:
        return {event["reason"]: event["count"] for event in self.events.values()}


def board(name: str = "g1") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "7"}}


def play(server: Server, script: Callable[[NoticeWriter], Coroutine[Any, Any, None]], **limits: Any) -> dict[str, int]:
    """Run a script against a writer; what became of the notices."""
    outcomes: dict[str, int] = {}

    def observe(outcome: str) -> None:
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    async def run() -> None:
        chosen = {"per_s": 1000.0, "burst": 1000, "board_burst": 1000, "board_interval_s": 60.0, **limits}
        writer = NoticeWriter(server, observe=observe, **chosen)
        task = asyncio.create_task(writer.run())
        try:
            await script(writer)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return outcomes


def test_the_same_again_is_counted() -> None:
    """What happens again is a count and the latest words on the Event that is there, in fewer requests than times."""
    server = Server()

    async def script(writer: NoticeWriter) -> None:
        for n in range(50):
            writer.tell(board(), Notice("Disconnected", f"time {n}"))
        await until(lambda: server.counts() == {"Disconnected": 50})
        writer.tell(board(), Notice("Disconnected", "once more"))
        writer.tell(board(), Notice("Connected", "there"))
        await until(lambda: server.counts() == {"Disconnected": 51, "Connected": 1})
        [event] = [e for e in server.events.values() if e["reason"] == "Disconnected"]
        assert event["message"] == "once more"
        assert (event["type"], event["involvedObject"]["uid"]) == ("Warning", "uid-g1")
        assert server.requests == 3

    play(server, script)


def test_an_event_that_the_cluster_forgot() -> None:
    """An Event that has expired is made anew, its count goes on."""
    server = Server()

    async def script(writer: NoticeWriter) -> None:
        writer.tell(board(), Notice("Disconnected", "x"))
        await until(lambda: len(server.events) == 1)
        server.events.clear()
        writer.tell(board(), Notice("Disconnected", "x"))
        await until(lambda: server.counts() == {"Disconnected": 2})

    play(server, script)


def test_one_bad_board_does_not_use_up_everybodys_budget() -> None:
    """A board beyond its own budget is dropped and counted; another one is told."""
    server = Server()

    async def script(writer: NoticeWriter) -> None:
        for n in range(30):
            writer.tell(board("bad"), Notice("Drifted" if n % 2 else "Resolved", f"{n}"))
            await until(lambda: not writer._waiting)
        writer.tell(board("good"), Notice("Connected", "x"))
        await until(lambda: "Connected" in server.counts())

    outcomes = play(server, script, board_burst=10)
    assert outcomes == {"written": 11, "dropped": 20}


def test_ten_thousand_boards_at_once() -> None:
    """A site's power cut is told within budget: the queue is bounded, the rest is dropped and counted at once."""
    server = Server()

    async def script(writer: NoticeWriter) -> None:
        for n in range(10_000):
            writer.tell(board(f"g{n}"), Notice("Disconnected", "x"))
        await until(lambda: server.requests >= 20)
        await asyncio.sleep(0.1)

    outcomes = play(server, script, burst=20, per_s=10.0)
    assert outcomes["dropped"] == 10_000 - MAX_WAITING
    assert 20 <= server.requests <= 25


@pytest.mark.parametrize("error", [Unavailable("503"), Rejected("422")])
def test_an_api_server_that_will_not(error: Exception) -> None:
    """An outage is waited for, a refusal is not; what follows is told in both cases."""
    server = Server(error)

    async def script(writer: NoticeWriter) -> None:
        writer.tell(board(), Notice("Disconnected", "x"))
        writer.tell(board(), Notice("Connected", "x"))
        await until(lambda: "Connected" in server.counts())

    outcomes = play(server, script)
    assert outcomes == ({"written": 2} if isinstance(error, Unavailable) else {"written": 1, "dropped": 1})
