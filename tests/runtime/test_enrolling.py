"""Enrolment against a real API server: what storms, forgeries and second uses of a claim come to."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boardlet_bridge.core.codec import Fields, encode
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.kube import connection
from boardlet_bridge.kube.client import KubeClient
from boardlet_bridge.runtime import enrollment
from boardlet_bridge.runtime.enrollment import Enrollments, EnrollmentSettings
from boardlet_cli import approve
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_wire import claim, seal
from boardlet_wire.names import GrantCode, GrantKey
from controlplane import ControlPlane
from waiting import until

MODEL = Path(__file__).parents[2] / "crds/samples/greenhouse.yaml"
RING = KeyRing(bytes(range(32)), bytes(16))
MAX_OPEN = 3


class Stranger:
    """Whoever holds the claim: asks, and reads what is answered to it."""

    def __init__(self, world: World, seed: str, hardware: bytes = b"\xa0\xb7") -> None:
        self.world, self.hardware = world, hardware
        self.secret = hashlib.sha256(seed.encode()).digest()
        self.public = claim.x25519(self.secret, claim.BASE)
        self.fingerprint = claim.fingerprint(self.public)
        self.name = f"{hardware.hex()}-{self.fingerprint}"

    def request(self) -> bytes:
        body = encode({0: 1, 1: bytes(16), 2: self.public, 3: self.hardware})
        return body + seal.tag(self.world.made.keys.up, f"e/{self.fingerprint}/q", b"", body, seal.UP_TAG)

    async def ask(self) -> GrantCode:
        """What a request of it comes to."""
        heard = self.world.answers.setdefault(f"e/{self.fingerprint}/a", [])
        before = len(heard)
        self.world.made.request(self.fingerprint, self.request())
        await until(lambda: len(heard) > before)
        body = seal.verify(self.world.made.keys.down, f"e/{self.fingerprint}/a", bytes(16), heard[-1], seal.DOWN_TAG)
        assert body is not None
        return GrantCode(Fields.decode(body).integer(GrantKey.CODE))


class World:
    """Enrolment as a bridge runs it, its answers kept, and what its engine has heard of boards."""

    client: KubeClient

    def __init__(self, cluster: Cluster, policy: Path | None = None) -> None:
        self.cluster = cluster
        self.answers: dict[str, list[bytes]] = {}
        self.outcomes: Counter[str] = Counter()
        self.spoken: dict[str, int] = {}
        self.claimed: dict[str, str] = {}
        settings = EnrollmentSettings(str(cluster.namespace), 1, MAX_OPEN, 1, policy)
        self.made = Enrollments(
            settings,
            RING,
            lambda: self.client,
            lambda topic, payload: self.answers.setdefault(topic, []).append(payload),
            lambda board_id: self.spoken.get(board_id, 0),
            lambda outcome: self.outcomes.update([outcome]),
            rival=lambda board_id, name: self.claimed.get(board_id, name) != name,
        )

    async def reason(self, who: Stranger, wanted: str) -> None:
        """Wait until the Enrollment shows this reason."""
        async with asyncio.timeout(30):
            while (await self.kubectl("get", "enrollment", who.name, "-o", REASON)) != wanted:
                await asyncio.sleep(0.05)

    async def approve(self, who: Stranger, board: str = "g7", **spec: Any) -> None:
        full = {"approved": True, "boardName": board, "modelRef": {"name": "greenhouse"}, **spec}
        await self.kubectl("patch", "enrollment", who.name, "--type=merge", "-p", json.dumps({"spec": full}))

    async def speaks(self, board: str) -> None:
        """The bridge hears this Board's board under key 1."""
        self.spoken[await self.kubectl("get", "board", board, "-o", "jsonpath={.spec.boardID}")] = 1

    async def kubectl(self, *arguments: str) -> str:
        return (await asyncio.to_thread(self.cluster.run, *arguments)).stdout


REASON, MESSAGE = (f"jsonpath={{.status.conditions[0].{field}}}" for field in ("reason", "message"))
Play = Callable[..., World]
Script = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def play(plane: ControlPlane, cluster: Cluster) -> Play:
    """Runs a script beside the enrolment of one bridge."""
    cluster.run("apply", "-f", str(MODEL))

    def run(script: Script, policy: Path | None = None) -> World:
        async def play() -> World:
            world = World(cluster, policy)
            async with KubeClient(connection.from_file(plane.kubeconfig())) as client:
                world.client = client
                works = asyncio.create_task(world.made.run())
                try:
                    await script(world)
                finally:
                    works.cancel()
                    await asyncio.gather(works, return_exceptions=True)
            return world

        return asyncio.run(play())

    return run


def test_a_key_that_was_used_is_never_given(play: Play) -> None:
    """An approval grants until the board has spoken, then to nobody; nor is the key of a Board in use given."""

    async def script(world: World) -> None:
        first, second = Stranger(world, "first"), Stranger(world, "second", b"\xa0\xb8")
        assert await first.ask() is GrantCode.PENDING
        await world.approve(first)
        assert await first.ask() is GrantCode.GRANTED
        assert await first.ask() is GrantCode.GRANTED, "the first answer may have been lost"
        await second.ask()
        await world.approve(second)
        assert await second.ask() is GrantCode.PENDING, "the Board has been promised to the first"
        await world.reason(second, "BoardExists")
        await world.speaks("g7")
        await world.reason(first, "Enrolled")
        assert await first.ask() is GrantCode.BURNT
        assert await second.ask() is GrantCode.PENDING
        credential = {"spec": {"credential": {"keyNumber": 2, "revokedKeyNumber": 1}}}
        await world.kubectl("patch", "board", "g7", "--type=merge", "-p", json.dumps(credential))
        assert await second.ask() is GrantCode.GRANTED, "the Board's next key, as the message says"
        await world.kubectl("delete", "enrollment", first.name)
        assert await first.ask() is GrantCode.PENDING, "forgotten, and to be approved anew"

    play(script)


def test_a_key_that_was_sent_is_never_sent_to_another(play: Play) -> None:
    """Whom a key was sent to may hold it in silence: denied, or its Enrollment deleted, another chip gets the next."""

    async def script(world: World) -> None:
        thief, true = Stranger(world, "thief"), Stranger(world, "true", b"\xa0\xb8")
        for stranger in (thief, true):
            await stranger.ask()
            await world.approve(stranger)
        assert await thief.ask() is GrantCode.GRANTED, "somebody did not compare the fingerprint"
        await world.kubectl("patch", "enrollment", thief.name, "--type=merge", "-p", '{"spec":{"approved":false}}')
        await world.reason(thief, "Denied")
        told = await world.kubectl("get", "enrollment", thief.name, "-o", MESSAGE)
        assert "{keyNumber: 2, revokedKeyNumber: 1}" in told, "it says what to do, though the thief asks no more"
        for mistake in ("denied", "deleted"):
            if mistake == "deleted":
                await world.kubectl("delete", "enrollment", thief.name)
            assert await true.ask() is GrantCode.PENDING
            message = await world.kubectl("get", "enrollment", true.name, "-o", MESSAGE)
            assert thief.name in message
            assert "{keyNumber: 2, revokedKeyNumber: 1}" in message
        credential = {"spec": {"credential": {"keyNumber": 2, "revokedKeyNumber": 1}}}
        await world.kubectl("patch", "board", "g7", "--type=merge", "-p", json.dumps(credential))
        assert await true.ask() is GrantCode.GRANTED

    play(script)


def test_the_id_of_anothers_board_leads_to_no_key(play: Play) -> None:
    """Who may approve, and make Boards, gets no key by naming the id of a Board elsewhere, be it silent or not."""

    async def script(world: World) -> None:
        tenant = Stranger(world, "tenant")
        world.claimed["k7m2q9xa"] = "victim"
        await tenant.ask()
        await world.approve(tenant, board="g8", boardID="k7m2q9xa")
        assert await tenant.ask() is GrantCode.PENDING
        await world.reason(tenant, "BoardExists")
        assert "g8" not in await world.kubectl("get", "boards", "-o", "name"), "nor is a Board made that claims it"
        made = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "g8"}}
        made["spec"] = {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}}
        await asyncio.to_thread(world.cluster.run, "create", "-f", "-", stdin=json.dumps(made))
        assert await tenant.ask() is GrantCode.PENDING, "nor by a Board that is there"
        world.claimed.clear()
        world.spoken["k7m2q9xa"] = 1
        assert await tenant.ask() is GrantCode.PENDING, "nor when the other one is gone, for a chip has the key"

    play(script)


def test_who_came_first_is_contested_too(play: Play) -> None:
    """A thief who asks as somebody's hardware before him, and never again, does not stay the one that looks right."""

    async def script(world: World) -> None:
        thief, true = Stranger(world, "thief"), Stranger(world, "true")
        await thief.ask()
        await world.reason(thief, "Pending")
        await true.ask()
        await world.reason(true, "Contested")
        await world.reason(thief, "Contested")
        assert true.name in await world.kubectl("get", "enrollment", thief.name, "-o", MESSAGE)

    play(script)


def test_a_fingerprint_that_stands_twice_is_not_chosen_from(play: Play) -> None:
    """Who repeats a board's request under another hardware number does not get his copy of it approved instead."""

    async def script(world: World) -> None:
        true, copy = Stranger(world, "true"), Stranger(world, "true", b"\x00\x01")
        await true.ask()
        assert (await asyncio.to_thread(approve._find, world.cluster, true.fingerprint))["metadata"][
            "name"
        ] == true.name
        await copy.ask()
        with pytest.raises(KubectlFailed, match=f"{copy.name}, {true.name}: name the one"):
            await asyncio.to_thread(approve._find, world.cluster, true.fingerprint)

    play(script)


def test_a_forged_request_is_an_enrollment_of_its_own(play: Play, tmp_path: Path) -> None:
    """Who says another's hardware number gets another Enrollment, both say so, and no policy chooses between them."""
    policy = tmp_path / "policy.yaml"
    policy.write_text('{model: greenhouse, hardware: ["a0:b7"], quota: 5, until: "2999-01-01T00:00:00Z"}')

    async def script(world: World) -> None:
        thief, true = Stranger(world, "thief", b"\xa0\xb9"), Stranger(world, "true")
        assert await true.ask() is GrantCode.GRANTED, "listed, and nobody else says so"
        await world.speaks(f"greenhouse-{true.hardware.hex()}")
        await world.reason(true, "Enrolled")
        assert await thief.ask() is GrantCode.PENDING, "not listed"
        thief = Stranger(world, "thief")
        assert thief.name != true.name
        assert await thief.ask() is GrantCode.PENDING, "listed, but so is the one before"
        await world.reason(thief, "Contested")

    play(script, policy)


def test_a_flood_is_bounded_and_counted(play: Play) -> None:
    """Of hundreds of requests so many become Enrollments as may, the others are refused with the reason, or dropped."""

    async def script(world: World) -> None:
        crowd = [Stranger(world, f"flood {n}", n.to_bytes(2, "big")) for n in range(3 * enrollment.WAITING)]
        for stranger in crowd:
            world.made.request(stranger.fingerprint, stranger.request())
            world.made.request(stranger.fingerprint, stranger.request()[:-1] + b"x")
        assert world.outcomes["flood"] >= 2 * enrollment.WAITING
        await until(lambda: world.outcomes["too_many"] >= 5)
        names = await world.kubectl("get", "enrollments", "-o", "name")
        assert len(names.split()) == MAX_OPEN
        assert world.outcomes["wrong_seal"] > 0

    play(script)


def test_what_hinders_is_said_on_the_object(play: Play) -> None:
    """No model, an id that is refused, a no: each is a reason with its next step, and the board is told to wait."""

    async def script(world: World) -> None:
        one, two = Stranger(world, "one", b"\x01\x01"), Stranger(world, "two", b"\x02\x02")
        await one.ask()
        await world.approve(one, modelRef={"name": "absent"})
        assert await one.ask() is GrantCode.PENDING
        await world.reason(one, "ModelNotFound")
        await world.kubectl("patch", "enrollment", one.name, "--type=merge", "-p", '{"spec":{"approved":false}}')
        assert await one.ask() is GrantCode.DENIED
        await world.reason(one, "Denied")
        await two.ask()
        await world.approve(two, board="g9", boardID="k7m2q9xa")
        assert await two.ask() is GrantCode.GRANTED
        assert await world.kubectl("get", "board", "g9", "-o", "jsonpath={.spec.boardID}") == "k7m2q9xa"

    play(script)


def test_the_next_bridge_goes_on(play: Play) -> None:
    """What one bridge has granted, the next sees used and burns: the objects are the memory."""

    async def grants(world: World) -> None:
        one = Stranger(world, "one")
        await one.ask()
        await world.approve(one)
        assert await one.ask() is GrantCode.GRANTED

    async def burns(world: World) -> None:
        await world.speaks("g7")
        one = Stranger(world, "one")
        await world.reason(one, "Enrolled")
        assert await one.ask() is GrantCode.BURNT

    play(grants)
    play(burns)


def test_a_board_of_another_replica_is_seen_in_its_status(play: Play) -> None:
    """Which replica hears a board does not matter: what its Board's status says burns the claim too."""

    async def script(world: World) -> None:
        one = Stranger(world, "one")
        await one.ask()
        await world.approve(one)
        assert await one.ask() is GrantCode.GRANTED
        status = {"status": {"board": {"keyNumber": 1}}}
        await world.kubectl("patch", "board", "g7", "--subresource=status", "--type=merge", "-p", json.dumps(status))
        await world.reason(one, "Enrolled")

    play(script)


def test_what_cannot_be_kept_in_the_cluster_is_said(play: Play) -> None:
    """While the API server does not know the kind, the bridge says so, and enrols again once it does."""

    async def script(world: World) -> None:
        namespace = world.made._settings.namespace
        world.made._settings = replace(world.made._settings, namespace="no-such-namespace")
        one = Stranger(world, "one")
        world.made.request(one.fingerprint, one.request())
        await until(lambda: world.outcomes["unavailable"] + world.outcomes["failed"] > 0)
        assert "no-such-namespace" in world.made.why
        world.made._settings = replace(world.made._settings, namespace=namespace)
        assert await one.ask() is GrantCode.PENDING
        assert world.made.why == ""

    play(script)
