"""Several bridges share the boards of one site: real processes, API server, broker; boards that speak the protocol."""

from __future__ import annotations

import asyncio
import time

from scene import LEASE_S, WAIT_S, Play, Replicas, Scene, owners, until


def test_one_comes_and_goes(replicas: Replicas, play: Play) -> None:
    """Two share the boards; a third takes only what is its own; a graceful stop hands that back at once; no Board is
    written by two in turn."""
    a, b, c = (replicas.add(name, lease_s=15) for name in "abc")
    replicas.start(a, b)

    async def scene(scene: Scene) -> None:
        before = owners(scene, a, b)
        await until(lambda: a.serves + b.serves == len(before))
        for replica in (a, b):
            assert replica.wrote == {i for i, owner in before.items() if owner == replica.name} != set()

        await asyncio.to_thread(c.start)
        after = owners(scene, a, b, c)
        await until(lambda: c.serves == list(after.values()).count("c"))
        await scene.edit(21)
        assert c.wrote == {i for i, owner in after.items() if owner == "c"} != set()
        assert c.wrote == {i for i in after if after[i] != before[i]}

        stopped = time.monotonic()
        await asyncio.to_thread(c.bridge.stop)
        await until(lambda: a.serves + b.serves == len(before))
        assert time.monotonic() - stopped < LEASE_S
        assert set(replicas.leases()) == {"a", "b"}
        await scene.edit(22)
        for board, writers in replicas.writers().items():
            assert writers == ([before[board], "c", before[board]] if after[board] == "c" else [before[board]])

    play(scene)


def test_one_is_killed(replicas: Replicas, play: Play) -> None:
    """What a killed replica served is served by the others within a lease's duration, and shown as it is: a board that
    went with it is not Ready any more."""
    a, b, c = (replicas.add(name) for name in "abc")
    replicas.start(a, b, c)

    async def scene(scene: Scene) -> None:
        before, after = owners(scene, a, b, c), owners(scene, a, b)
        await until(lambda: a.serves + b.serves + c.serves == len(before))
        await scene.edit(21)
        await asyncio.to_thread(c.bridge.kill)
        killed = time.monotonic()
        await until(lambda: a.serves + b.serves == len(before))
        assert time.monotonic() - killed < 2 * LEASE_S  # one, and what a busy machine takes
        scene.fleet.cut()
        await scene.right()
        for board, writers in replicas.writers().items():
            moved = before[board] == "c"
            assert writers == ([before[board], after[board]] if moved else [before[board]])

    play(scene)


def test_one_is_paused_and_wakes_up_late(replicas: Replicas, play: Play) -> None:
    """A replica that was paused for longer than its lease lasts, in the midst of work, writes nothing when it wakes up
    before it has learned that others serve its boards; then it gets them back; no Board is written by two in turn."""
    a, b = replicas.add("a"), replicas.add("b")
    replicas.start(a, b)

    async def scene(scene: Scene) -> None:
        before = owners(scene, a, b)
        await until(lambda: a.serves + b.serves == len(before))
        scene.fleet.change((0, len(before), 5.0))  # both always have values to write
        await until(lambda: b.wrote_since(time.monotonic() - 1) != set())
        b.bridge.process.pause()
        await until(lambda: a.serves == len(before))
        await scene.objects.patch(scene.fleet.ids[0], {"target": 23})
        paused = len(b.writes)
        held_until = len(a.writes)
        b.bridge.process.resume()
        await until(lambda: a.serves + b.serves == len(before) and b.serves > 0)
        await until(lambda: len(b.writes) > paused)
        scene.fleet.change()
        await scene.edit(24)
        back = b.writes[paused][0]
        assert len(a.writes) > held_until
        for board, owner in before.items():
            ours = [at for at, name in a.writes if name == board]
            if owner == "b":  # a's last write of it came before b's first one after the pause
                theirs = [at for at, name in b.writes[paused:] if name == board]
                assert max(ours, default=0.0) < min(theirs)
                assert back <= min(theirs)
        for board, writers in replicas.writers().items():
            assert writers in ([before[board]], ["b", "a", "b"])

    play(scene)


def test_one_does_not_reach_the_broker(replicas: Replicas, play: Play) -> None:
    """What a replica served that reaches the API server and not the broker is served by the other, edits included; when
    it is let in again it has that back, and no Board is written by two in turn."""
    password = replicas.site.folder / "b.password"
    right = (replicas.site.folder / "bridge.password").read_text()
    password.write_text(right)
    a = replicas.add("a", broker_absent_s=2)
    b = replicas.add("b", broker_absent_s=2, broker_password_file=password)
    replicas.start(a, b)

    async def scene(scene: Scene) -> None:
        before = owners(scene, a, b)
        await until(lambda: a.serves + b.serves == len(before))
        password.write_text("another")
        await asyncio.to_thread(replicas.site.broker.restart)
        await until(lambda: (a.serves, b.serves) == (len(before), 0))
        assert replicas.leases() == {"a": {"a"}, "b": {"a"}}
        await scene.edit(21)
        password.write_text(right)
        # It tries the broker again within half a minute.
        await until(lambda: b.serves == list(before.values()).count("b"), 2 * WAIT_S)
        await scene.edit(22)
        for board, writers in replicas.writers().items():
            assert writers == ([before[board]] if before[board] == "a" else ["b", "a", "b"])

    play(scene)


def test_without_rights_for_leases(replicas: Replicas, play: Play) -> None:
    """A bridge whose role is of an older release says what it lacks, and serves every board as before."""
    old = replicas.add("old", lease_namespace=replicas.cluster.namespace)
    old.start()

    async def scene(scene: Scene) -> None:
        assert old.serves == len(scene.fleet.ids)
        await scene.edit(21)
        assert "no rights for Leases" in old.bridge.log
        assert old.bridge.ready

    play(scene)
