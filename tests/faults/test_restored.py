"""etcd goes back to a snapshot under a running fleet: nothing is silently undone, and every board ends as asked."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any

from admin import Admin
from boards_in_use import Fleet, Life, Member
from controlplane import ControlPlane
from judge import Case, MakeFleet

SEED = 31
WAIT_S = 90.0


def until(fleet: Fleet, true: Callable[[dict[str, dict[str, Any]]], bool], what: str) -> dict[str, dict[str, Any]]:
    """The Boards once this is true of them."""
    deadline = time.monotonic() + WAIT_S
    with fleet.admin() as admin:
        while not true(objects := admin.boards()):
            assert time.monotonic() < deadline, what
            time.sleep(0.2)
    return objects


def condition(obj: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition, empty where there is none."""
    found: dict[str, dict[str, Any]] = {c["type"]: c for c in (obj.get("status") or {}).get("conditions") or ()}
    return found.get(kind, {})


def accept(fleet: Fleet, admin: Admin, member: Member, obj: dict[str, Any]) -> None:
    """Do what the condition says, after a last edit, as a person would."""
    named = re.search(r"boardlet\.dev/accept-restore=(\d+)", condition(obj, "Restored")["message"])
    assert named, "the message says what to do"
    fleet.edit(admin, member, random.Random(SEED))
    admin.patch(member.name, {"metadata": {"annotations": {"boardlet.dev/accept-restore": named[1]}}})


def test_etcd_restored_from_a_snapshot(case: Case, make_fleet: MakeFleet, plane: ControlPlane) -> None:
    """Boards edited after the snapshot, created after it and deleted after it; with the bridge alive, and anew."""
    rounds = case.count(3, 1)
    case.injected(f"{rounds} × etcd restored; boards edited, created and deleted after the snapshot")
    fleet = make_fleet(case.count(12, 4), SEED)
    created = fleet.add()
    edited, deleted = fleet.members[0], fleet.members[1]
    for number in range(rounds):
        _round(fleet, plane, edited, created, deleted, anew=number % 2 == 1)
        with Life(fleet):
            time.sleep(3)
        case.judge(fleet, may_go_back=True)


def _round(fleet: Fleet, plane: ControlPlane, edited: Member, created: Member, deleted: Member, *, anew: bool) -> None:
    with fleet.admin() as admin:
        if created.board.running:  # of the round before
            created.board.kill()
            admin.delete(created.name)
        until(fleet, lambda objects: created.name not in objects, "the object of the round before is gone")
        fleet.ledger.forget(created.name)
        before = admin.boards()
        backup = plane.snapshot()
        dice = random.Random(SEED)
        for _ in range(3):
            fleet.edit(admin, edited, dice)
        fleet.register(admin, created)
        created.board.start()
        assert not (found := fleet.settled()), "\n".join(found)
        admin.delete(deleted.name)
        until(fleet, lambda objects: deleted.name not in objects, "the deleted Board is gone")
        had = {member.name: member.taken() for member in fleet.members}
    if anew:
        fleet.site.bridge.kill()
    plane.restore(backup)
    for member in (edited, created, deleted):
        fleet.ledger.forget(
            member.name, before.get(member.name, {"metadata": {"generation": 0}})["metadata"]["generation"]
        )
    if anew:
        fleet.site.bridge.start()
    objects = until(
        fleet,
        lambda objects: (
            condition(objects[edited.name], "Restored").get("status") == "True"
            and condition(objects[deleted.name], "Ready").get("status") == "True"
        ),
        f"{edited.name} says Restored, {deleted.name} is served again",
    )
    assert created.name not in objects
    assert had == {member.name: member.taken() for member in fleet.members}, "nothing was undone"
    with fleet.admin() as admin:
        accept(fleet, admin, edited, objects[edited.name])
        created.step += 1
        fleet.register(admin, created)
