"""The judge of the fault suite can say no: each kind of wrong that it looks for is found where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boards_in_use import DOOR, LED, LIGHT, Member, compare
from ledger import Ledger
from mail import Mail
from virtualboard import VirtualBoard

VALUES = {"led": True, "step": 3, "target": 20.8, "label": "x"}


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """A board that was never switched on, with the traces of one that ran."""
    board = VirtualBoard(tmp_path, {"id": "fleet000"})
    board.set_pin(LED, 1)
    board.set_pin(DOOR, 0)
    board.set_adc(LIGHT, 800)
    for name, lines in {"step": "2\n3\n", "target": "20.79999923706055\n", "label": "'x'\n"}.items():
        (tmp_path / "pins" / name).write_text(lines)
    return Member("board-0", "fleet000", board)


def an_object() -> dict[str, Any]:
    """The object that is in step with that board."""
    ready = {"type": "Ready", "status": "True", "reason": "Synced", "message": ""}
    reported = {**VALUES, "light": 400, "door": True}
    desired = {"revision": 7, "digest": "ab"}
    status = {"observedGeneration": 4, "reported": reported, "desired": desired, "conditions": [ready]}
    return {"metadata": {"generation": 4}, "spec": {"properties": dict(VALUES)}, "status": status}


MAIL = Mail(7, "ab", {0: True, 1: 3, 2: 20.799999, 3: "x"})


def test_a_board_in_step_has_no_differences(member: Member) -> None:
    """Single precision is no difference."""
    assert compare(member, an_object(), MAIL) == []


def test_every_place_is_compared(member: Member) -> None:
    """A value that differs in spec, status, mailbox or silicon is told, and so are generation, revision and Ready."""
    assert compare(member, None, MAIL)
    assert compare(member, an_object(), None)
    for change in (
        lambda o: o["spec"]["properties"].update(step=4),
        lambda o: o["status"]["reported"].update(light=399),
        lambda o: o["status"]["reported"].pop("door"),
        lambda o: o["metadata"].update(generation=5),
        lambda o: o["status"]["conditions"][0].update(status="Unknown"),
    ):
        obj = an_object()
        change(obj)
        assert len(compare(member, obj, MAIL)) == 1
    assert len(compare(member, an_object(), Mail(7, "ab", {**MAIL.values, 3: "y"}))) == 1
    assert len(compare(member, an_object(), Mail(8, "ab", MAIL.values))) == 1
    member.board.set_pin(LED, 0)
    assert len(compare(member, an_object(), MAIL)) == 1


def test_lost_edits_and_lies_are_found() -> None:
    """An edit above what the board has taken is lost, and a claim before its step is a lie."""
    ledger = Ledger()
    ledger.edited("a", 2, 1)
    ledger.edited("a", 3, 2)
    ledger.claimed("a", 2, 1)
    assert (ledger.lost("a", 2), ledger.lost("a", 1), ledger.lies()) == (0, 1, [])
    ledger.claimed("a", 3, 1)
    assert len(ledger.lies()) == 1
