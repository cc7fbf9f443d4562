"""Chaos can fail: each mutant breaks one promise in core or firmware, and the machine has to find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from boardlet_bridge.core import board as board_module
from boardlet_bridge.core import desired as desired_module
from boardlet_bridge.core import session as session_module
from boardlet_bridge.core import status as status_module
from boardlet_bridge.core.event import SetFinalizer
from boardlet_bridge.core.state import Board, Link
from boardlet_bridge.runtime import snapshot as snapshot_module
from boardlet_bridge.runtime import wiring
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from silicon import twin_module
from test_machine import PROFILE, Chaos
from truth import UntruthError

Patch = pytest.MonkeyPatch
EXAMPLES, STEPS = 200, 25  # most are found within twenty examples


def wills_of_any_session(patch: Patch) -> None:
    """A will ends the present session, whatever its epoch is."""
    real = session_module.read_session

    def read(board: Board, payload: bytes, now: float) -> Any:
        held, board.epoch = board.epoch, b""
        effects = real(board, payload, now)
        if not board.epoch:
            board.epoch = held
        return effects

    patch.setattr(board_module, "read_session", read)


def mailed_is_believed(patch: Patch) -> None:
    """What was published counts as mailed, without being read back."""
    real = desired_module._mail

    def mail(board: Board, now: float) -> Any:
        effects = real(board, now)
        if board.desired is not None and board.mailed_at == now:
            board.mailbox = board.desired.payload
        return effects

    patch.setattr(desired_module, "_mail", mail)


def lower_revisions_are_applied(patch: Patch) -> None:
    """The board takes whatever revision comes."""
    real = twin_module.Twin.on_desired

    def on_desired(self: Any, now: int, body: Any) -> None:
        self.highest = 0
        real(self, now, body)

    patch.setattr(twin_module.Twin, "on_desired", on_desired)


def retained_here_is_life(patch: Patch) -> None:
    """A retained `here` counts as an answer."""
    real = session_module._born

    def born(board: Board, *args: Any) -> Any:
        effects = real(board, *args)
        board.link = Link.LIVE
        return effects

    patch.setattr(session_module, "_born", born)


def restores_are_not_seen(patch: Patch) -> None:
    """An object that is older than what the board has confirmed is mailed like any other."""
    patch.setattr(desired_module, "_restored", lambda board: 0)


def names_wear_the_flash(patch: Patch) -> None:
    """A new generation of the same desired is written to flash."""
    real = twin_module.Twin.on_desired

    def on_desired(self: Any, now: int, body: Any) -> None:
        before = self.applied
        real(self, now, body)
        if before and self.applied and before[1] == self.applied[1] and before != self.applied:
            self.store.put("next", twin_module.cbor.dumps([*self.applied, self.state]))

    patch.setattr(twin_module.Twin, "on_desired", on_desired)


def tries_are_not_counted(patch: Patch) -> None:
    """A desired is applied before it is persisted, so that a power cut forgets it."""
    real = twin_module.Twin._take

    def take(self: Any, now: int, asked: Any, decoded: Any) -> None:
        real(self, now, asked, decoded)
        if self.applied and self.applied[1] == asked[1]:
            self.store.drop("next")

    patch.setattr(twin_module.Twin, "_take", take)


def mailed_is_confirmed(patch: Patch) -> None:
    """What is read back from the mailbox counts as applied by the board."""
    real = board_module.read_mailbox

    def read(board: Board, payload: bytes, now: float) -> Any:
        effects = real(board, payload, now)
        if board.desired is not None and payload == board.desired.payload:
            board.applied = board.desired.identity
        return effects

    patch.setattr(board_module, "read_mailbox", read)


def deletion_leaves_the_mailbox(patch: Patch) -> None:
    """The finalizer is taken off without clearing what is retained."""
    patch.setattr(desired_module, "_clear", lambda board, now: [SetFinalizer(False)] if board.finalizer else [])


def two_writes_an_edit(patch: Patch) -> None:
    """An edit is shown as pending before the board can have answered."""
    real = wiring._limits

    def limits(chosen: Any) -> Any:
        return real(chosen.model_copy(update={"pending_grace_s": 0.0}))

    patch.setattr(wiring, "_limits", limits)


def heartbeats_are_written(patch: Patch) -> None:
    """A status that moves with the clock is written although nothing changed."""
    real = status_module.snapshot

    def snapshot(board: Board, previous: Any, wall: str, *more: Any) -> Any:
        return {**real(board, previous, wall, *more), "heardAt": board.deadline}

    patch.setattr(snapshot_module, "snapshot", snapshot)
    shown = board_module._show
    patch.setattr(board_module, "_show", lambda board, *a: [*shown(board, *a), board_module.WriteStatus(urgent=True)])


EDITS = "edit_target edit_led edit_heartbeat label_the_object edit_model"
# What it breaks, and the rules that it takes beside `moment` and `wait`: narrow, so that few examples are enough.
MUTANTS: list[tuple[Callable[[Patch], None], str, str]] = [
    (wills_of_any_session, "Gone", "cut late_will"),
    (mailed_is_believed, "never came", "swallow_an_edit edit_led"),
    (lower_revisions_are_applied, "backwards|flash wear", "edit_target edit_led replay"),
    (retained_here_is_life, "Connected|Silent", "power start_bridge kill_bridge"),
    (restores_are_not_seen, "restore|backwards", "edit_target backup restore"),
    (names_wear_the_flash, "flash wear", EDITS),
    (tries_are_not_counted, "forgot|backwards|flash wear", f"{EDITS} power crash"),
    (mailed_is_confirmed, "Synced", "edit_heartbeat stall"),
    (deletion_leaves_the_mailbox, "mailbox of a deleted board", "delete create"),
    (two_writes_an_edit, "an edit cost", EDITS),
    (heartbeats_are_written, "although nothing changed|an edit cost", EDITS),
]


def focused(rules: str) -> type[Chaos]:
    """The machine with few of its rules."""
    kept = {"moment", "wait", *rules.split()}
    every = {rule.function.__name__ for rule in Chaos.setup_state().rules}
    assert kept <= every
    return type("Focused", (Chaos,), dict.fromkeys(every - kept))


@pytest.mark.parametrize(("mutant", "broken", "rules"), MUTANTS, ids=[mutant.__name__ for mutant, *_ in MUTANTS])
def test_a_mutant_is_found(mutant: Callable[[Patch], None], broken: str, rules: str, monkeypatch: Patch) -> None:
    """The machine finds what the mutant breaks, and names it."""
    mutant(monkeypatch)
    chosen = settings(PROFILE, max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=True)
    with pytest.raises(UntruthError, match=broken):
        run_state_machine_as_test(focused(rules), settings=chosen)
