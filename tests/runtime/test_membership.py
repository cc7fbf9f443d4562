"""Replicas under chance: rounds that stop anywhere, pauses, deaths, an API server that is away or answers late."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from boardlet_bridge.kube.client import Conflict, Forbidden, NotFound, Unavailable
from boardlet_bridge.kube.lease import prefix, read, tidy
from boardlet_bridge.runtime import membership
from boardlet_bridge.runtime.fence import Fence, Gate
from boardlet_bridge.runtime.membership import FORBIDDEN_S, Membership
from boardlet_bridge.runtime.roll import KEPT
from boardlet_bridge.runtime.shard import BUCKETS
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

SITE = "5174ab1e"
DURATION_S, ABSENT_S = 15, 30


class Server:
    """The Leases of one namespace, with the clock of the world; `hold` has every answer wait to be let through."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.up = True
        self.allowed = True
        self.namespaced = True
        self.leases: dict[str, dict[str, Any]] = {}
        self.versions = itertools.count(1)

    def names(self) -> set[str]:
        return {name.removeprefix(prefix(SITE)) for name in self.leases}


class Client:
    """One replica's way to it: a call is carried out at one step, and its answer arrives at another."""

    namespace = "system"

    def __init__(self, server: Server) -> None:
        self.server = server
        self.waiting: list[asyncio.Future[None]] = []
        self.stepwise = False

    async def _passed(self) -> None:
        if self.stepwise:
            future = asyncio.get_running_loop().create_future()
            self.waiting.append(future)
            await future
        if not self.server.up:
            raise Unavailable("away")
        if not self.server.allowed:
            raise Forbidden("403: leases is forbidden")

    def step(self) -> None:
        if self.waiting:
            future = self.waiting.pop(0)
            if not future.done():
                future.set_result(None)

    async def leases(self, namespace: str, label: str) -> list[dict[str, Any]]:
        await self._passed()
        found = list(self.server.leases.values())
        await self._passed()
        return found

    @asynccontextmanager
    async def watch_leases(self, namespace: str, label: str) -> AsyncIterator[AsyncIterator[bytes]]:
        raise Unavailable("no watch here")
        yield

    async def put_lease(self, body: Mapping[str, Any]) -> dict[str, Any]:
        await self._passed()
        name, version = body["metadata"]["name"], body["metadata"].get("resourceVersion")
        there = self.server.leases.get(name)
        if (version and there is None) or not self.server.namespaced:
            raise NotFound("404")
        if there is not None and there["metadata"]["resourceVersion"] != version:
            raise Conflict("409")
        meta = {**body["metadata"], "resourceVersion": str(next(self.server.versions))}
        written = self.server.leases[name] = {**body, "metadata": meta}
        await self._passed()
        return written

    async def delete_lease(self, namespace: str, name: str, version: str) -> None:
        await self._passed()
        there = self.server.leases.get(name)
        if there is None:
            raise NotFound("404")
        if there["metadata"]["resourceVersion"] != version:
            raise Conflict("409")
        del self.server.leases[name]


class Replica:
    """A membership with hands that only remember."""

    def __init__(self, server: Server, name: str, holder: str = "") -> None:
        self.client = Client(server)
        self.fence = Fence(DURATION_S, lambda: server.now)
        self.serving: set[str] = set()
        self.connected = True
        self.member = Membership(
            self.client,
            self,
            self.fence,
            namespace="system",
            site=SITE,
            name=name,
            holder=holder or f"holder-{name}",
            duration_s=DURATION_S,
            absent_s=ABSENT_S,
            clock=lambda: server.now,
        )
        self.task: asyncio.Task[float] | None = None

    def hold(self, buckets: frozenset[str]) -> None:
        self.serving |= buckets

    def release(self, buckets: frozenset[str]) -> None:
        self.serving -= buckets

    async def landed(self) -> None: ...
    def reopened(self) -> None: ...

    def reaches(self) -> bool:
        return self.connected

    @property
    def speaks_for(self) -> set[str]:
        """The buckets for which it would write now."""
        return self.serving if self.fence.sure else set()

    async def round(self) -> float:
        return await self.member._try()

    async def step(self) -> None:
        """One step of its round, which begins if there is none."""
        self.client.stepwise = True
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self.round())
        else:
            self.client.step()
        for _ in range(5):
            await asyncio.sleep(0)


async def agree(*replicas: Replica) -> None:
    """Whole rounds until nothing changes."""
    for _ in range(4):
        for replica in replicas:
            replica.client.stepwise = False
            await replica.round()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(0, 2)),
        st.tuples(st.just("step"), st.integers(0, 2)),
        st.tuples(st.just("rounds"), st.integers(0, 2)),
        st.tuples(st.just("time"), st.sampled_from([1, 4, 6, 11, 16, 40])),
        st.tuples(st.just("api"), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("broker"), st.integers(0, 2)),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(STEPS)
def test_no_two_speak_for_one_bucket_and_in_the_end_all_are_spoken_for(steps: list[tuple[str, int]]) -> None:
    """Three replicas whose rounds, pauses and answers are interleaved at will: at no moment may two of them write for
    one bucket, and once all run undisturbed every bucket has one."""

    async def run() -> None:
        server = Server()
        replicas = [Replica(server, name) for name in "abc"]
        for what, which in steps:
            match what:
                case "step":
                    await replicas[which].step()
                case "rounds":
                    for _ in range(8):
                        await replicas[which].step()
                case "time":
                    server.now += which
                case "api":
                    server.up = bool(which)
                case "broker":
                    replicas[which].connected = not replicas[which].connected
                case "leave":
                    gone = replicas[which]
                    if gone.task:
                        gone.task.cancel()
                        await asyncio.gather(gone.task, return_exceptions=True)
                    gone.serving.clear()
                    gone.client.stepwise = False
                    await gone.member.leave()
                    replicas[which] = Replica(server, "abc"[which], f"holder-{server.now}")
            for one, other in itertools.combinations(replicas, 2):
                assert not one.speaks_for & other.speaks_for
        server.up = True
        for replica in replicas:
            replica.connected = True
            if replica.task:
                replica.task.cancel()
                await asyncio.gather(replica.task, return_exceptions=True)
        for _ in range(4):  # whoever was given up by mistake has been seen to live by then
            await agree(*replicas)
            server.now += 4
        spoken = [replica.speaks_for for replica in replicas]
        assert set().union(*spoken) == BUCKETS
        assert sum(map(len, spoken)) == len(BUCKETS)

    asyncio.run(run())


def test_who_does_not_reach_the_broker_leaves_its_buckets_to_who_does() -> None:
    """After `absent_s`, not before, the others serve what it served; once it is connected again it has that back."""

    async def run() -> None:
        server = Server()
        a, b, c = replicas = [Replica(server, name) for name in "abc"]
        await agree(*replicas)
        before = [set(replica.serving) for replica in replicas]
        c.connected = False
        for _ in range(5):
            await agree(*replicas)
            assert [replica.serving for replica in replicas] == before
            server.now += ABSENT_S / 6
        for _ in range(2):  # each has its own clock's view of when
            server.now += ABSENT_S / 6
            await agree(*replicas)
        assert not c.serving
        assert a.speaks_for | b.speaks_for == BUCKETS
        assert a.serving > before[0]
        assert b.serving > before[1]
        assert server.names() == {"a", "b", "c"}, "it goes on to live"
        c.connected = True
        await agree(*replicas)
        assert [replica.serving for replica in replicas] == before

    asyncio.run(run())


def test_an_outage_of_the_broker_moves_nothing() -> None:
    """Where no replica reaches the broker, none gives anything up, however long it takes and who noticed it first; the
    first that is back has everything until the others are, and who is left alone serves everything all the same."""

    async def run() -> None:
        server = Server()
        a, b, c = replicas = [Replica(server, name) for name in "abc"]
        await agree(*replicas)
        before = [set(replica.serving) for replica in replicas]
        for replica in replicas:
            replica.connected = False
            await agree(*replicas)
            server.now += 2
        for _ in range(20):
            server.now += 4
            await agree(*replicas)
            assert [replica.serving for replica in replicas] == before
        b.connected = True
        await agree(*replicas)
        assert b.speaks_for == BUCKETS
        b.connected = False
        await b.member.leave()
        await agree(a, c)
        assert a.speaks_for | c.speaks_for == BUCKETS
        await c.member.leave()
        await agree(a)
        assert a.speaks_for == BUCKETS

    asyncio.run(run())


def test_an_outage_of_the_api_server_moves_nothing() -> None:
    """While nobody can renew, all go on with what was minted and write nothing; afterwards each has what it had."""

    async def run() -> None:
        server = Server()
        a, b = Replica(server, "a"), Replica(server, "b")
        await agree(a, b)
        before = set(a.serving), set(b.serving)
        server.up = False
        for _ in range(100):
            server.now += 1
            await agree(a, b)
            assert (a.serving, b.serving) == before
        assert a.fence.gate is b.fence.gate is Gate.ADRIFT
        server.up = True
        await a.round()
        await b.round()
        assert (a.serving, b.serving) == before
        assert a.fence.gate is b.fence.gate is Gate.OPEN

    asyncio.run(run())


def test_who_was_paused_may_say_nothing_before_it_has_looked() -> None:
    """After a pause the gate is closed, not adrift, though the last thing that was known is that all was well."""

    async def run() -> None:
        server = Server()
        a, b = Replica(server, "a"), Replica(server, "b")
        await agree(a, b)
        for _ in range(5):  # b is paused
            server.now += 4
            await a.round()
        assert a.serving == BUCKETS
        assert b.fence.gate is Gate.CLOSED
        await b.round()
        assert b.fence.gate is Gate.OPEN
        assert b.serving == set()
        await agree(a, b)
        assert a.serving | b.serving == BUCKETS
        assert b.serving

    asyncio.run(run())


def test_a_lone_bridge_that_was_paused_goes_on_with_what_it_had() -> None:
    """Where nobody else lives, a pause costs nothing but a look."""

    async def run() -> None:
        server, held = Server(), []
        a = Replica(server, "a")
        await agree(a)
        a.release = lambda buckets: held.append(buckets)  # type: ignore[method-assign]
        server.now += 1000
        assert a.fence.gate is Gate.CLOSED
        await a.round()
        assert a.fence.gate is Gate.OPEN
        assert held == []

    asyncio.run(run())


def test_a_process_that_takes_the_place_of_a_killed_one_need_not_wait() -> None:
    """The next process of the same name, as in the same pod, has its lease and boards at once."""

    async def run() -> None:
        server = Server()
        await agree(Replica(server, "a", "first"))
        second = Replica(server, "a", "second")
        await second.round()
        assert second.serving == BUCKETS
        assert second.fence.sure

    asyncio.run(run())


def test_two_of_one_name_become_two_replicas() -> None:
    """Who finds another process in its lease goes on under another name, says so, and they share."""

    async def run() -> None:
        server = Server()
        first, second = Replica(server, "a", "first"), Replica(server, "a", "second")
        await first.round()
        await second.round()
        server.now += DURATION_S / 3
        with capture_logs() as said:
            await first.round()
        assert [line["name"] for line in said if "another bridge" in line["event"]] == ["a"]
        await agree(first, second)
        assert len(server.leases) == 2
        assert first.serving | second.serving == BUCKETS
        assert not first.serving & second.serving

    asyncio.run(run())


def test_without_rights_a_bridge_is_alone_and_says_so() -> None:
    """An old role does not stop a bridge: it serves everything and names what is missing; with rights it joins."""

    async def run() -> None:
        server = Server()
        server.allowed = False
        a = Replica(server, "a")
        with capture_logs() as said:
            await a.round()
            await a.round()
        assert [line["needed"] for line in said] == [
            "coordination.k8s.io/leases in namespace system: get, list, watch, create, update, delete"
        ]
        server.now += 1000
        assert a.serving == a.speaks_for == BUCKETS
        server.allowed = True
        await a.round()
        assert server.names() == {"a"}
        assert not a.fence.alone
        assert a.speaks_for == BUCKETS

    asyncio.run(run())


def test_an_api_server_that_knows_no_rights_yet_makes_nobody_alone() -> None:
    """When it starts it may forbid everything for a moment; replicas that had their leases share on. For long it means
    that the rights are gone."""

    async def run() -> None:
        server = Server()
        a, b = Replica(server, "a"), Replica(server, "b")
        await agree(a, b)
        before = set(a.serving), set(b.serving)
        server.up = False
        for _ in range(10):
            server.now += 4
            await agree(a, b)
        server.up, server.allowed = True, False
        for _ in range(5):
            server.now += 1
            await agree(a, b)
            assert (a.serving, b.serving) == before
        server.now += FORBIDDEN_S
        await agree(a, b)
        assert a.serving == b.serving == BUCKETS

    asyncio.run(run())


def test_a_bridge_without_rights_forgets_that_the_api_server_was_away() -> None:
    """Nothing is said to be wrong with a lease that is not needed."""

    async def run() -> None:
        server = Server()
        server.up = server.allowed = False
        a = Replica(server, "a")
        await a.round()
        assert a.member.why == "away"
        server.up = True
        await a.round()
        assert a.serving == BUCKETS
        assert a.member.why == ""

    asyncio.run(run())


def test_a_namespace_that_is_not_there_stops_no_bridge() -> None:
    """Nobody can have a lease where a kubeconfig names a namespace that was deleted; once it is there all join."""

    async def run() -> None:
        server = Server()
        server.namespaced = False
        a = Replica(server, "a")
        await a.round()
        assert a.serving == a.speaks_for == BUCKETS
        server.namespaced = True
        await a.round()
        assert server.names() == {"a"}
        assert not a.fence.alone

    asyncio.run(run())


def test_a_dead_lease_of_another_duration_is_waited_for_once() -> None:
    """Whoever was killed before lease_s was raised does not keep its boards from being served."""

    async def run() -> None:
        server = Server()
        await agree(Replica(server, "a"))
        next(iter(server.leases.values()))["spec"]["leaseDurationSeconds"] = 5
        b = Replica(server, "b")
        for _ in range(3):
            assert not b.speaks_for
            server.now += 4
            await b.round()
        assert b.speaks_for == BUCKETS

    asyncio.run(run())


def test_the_lease_of_a_process_before_that_a_restore_brings_back_is_replaced() -> None:
    """An older backup's lease is nobody's: the bridge of its name goes on, under its name, with all that it has."""

    async def run() -> None:
        server = Server()
        await agree(Replica(server, "a", "first"))
        backup = dict(server.leases)
        a = Replica(server, "a", "second")
        await agree(a)
        server.leases = backup
        server.now += 1
        await a.round()
        assert a.speaks_for == BUCKETS
        assert [lease["spec"]["holderIdentity"] for lease in server.leases.values()] == ["second"]

    asyncio.run(run())


def test_a_slow_api_server_is_given_time() -> None:
    """A round of which the requests take longer than the time between two renewals ends all the same."""

    class Slow(Client):
        async def _passed(self) -> None:
            await asyncio.sleep(0.07)

    async def run() -> None:
        server = Server()
        a = Replica(server, "a")
        member = Membership(
            Slow(server), a, Fence(1), namespace="system", site=SITE, name="a", holder="a", duration_s=1
        )
        running = asyncio.create_task(member.run())
        await asyncio.wait_for(member.joined.wait(), 10)
        assert a.serving == BUCKETS
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_without_rights_the_api_server_is_not_pestered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge of an old role asks for its leases, and to watch them, as often as rights may come, not all the time."""
    asked: list[str] = []

    class Refused(Client):
        async def leases(self, namespace: str, label: str) -> list[dict[str, Any]]:
            asked.append("list")
            raise Forbidden("403")

        @asynccontextmanager
        async def watch_leases(self, namespace: str, label: str) -> AsyncIterator[AsyncIterator[bytes]]:
            asked.append("watch")
            raise Forbidden("403")
            yield

    async def run() -> None:
        a = Replica(Server(), "a")
        a.member._client = Refused(a.client.server)
        running = asyncio.create_task(a.member.run())
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    monkeypatch.setattr(membership, "AGAIN_S", 0.01)
    asyncio.run(run())
    assert sorted(asked) == ["list", "watch"]


def test_leases_of_the_long_dead_are_swept_away() -> None:
    """A killed replica's lease tells an operator for a while, and does not stay for ever."""

    async def run() -> None:
        server = Server()
        a, b = Replica(server, "a"), Replica(server, "b")
        await agree(a, b)
        for _ in range(KEPT * 3):
            server.now += DURATION_S / 3 - 0.1
            await a.round()
            assert server.names() == {"a", "b"}
        for _ in range(4):
            server.now += DURATION_S / 3
            await a.round()
        assert server.names() == {"a"}

    asyncio.run(run())


@pytest.mark.parametrize(
    "obj",
    [
        {},
        {"metadata": {"name": "leader"}, "spec": {"leaseDurationSeconds": 15}},
        {"metadata": {"name": prefix(SITE) + "x"}, "spec": {}},
        {"metadata": {"name": prefix(SITE) + "x"}, "spec": {"leaseDurationSeconds": 10**9}},
        {"metadata": {"name": prefix(SITE) + "x"}, "spec": None},
    ],
)
def test_what_is_no_lease_of_ours_is_nobody(obj: dict[str, Any]) -> None:
    """Other components' leases, and ones that somebody wrote by hand, take part in nothing."""
    assert read(obj, SITE) is None


@given(st.text(max_size=300) | st.text("a-._", max_size=300))
def test_any_host_name_becomes_a_leases_name(name: str) -> None:
    """What hosts are called is no reason not to start."""
    made = prefix(SITE) + tidy(name, SITE)
    assert len(made) <= 253 - len("-abcd")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", made)
