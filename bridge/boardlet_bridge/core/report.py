"""Reported: what the silicon says of itself, in sequence, of one epoch (rules 4, 7 and 10 of docs/design.md).

A report is parsed whole before anything of it is taken, so that a malformed one changes nothing: its sequence number
then counts as missed, and the board is asked for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from boardlet_wire.names import REPORTED, Health, Operation, PropertyCode, ReportKey

from boardlet_bridge.core import dropped
from boardlet_bridge.core.codec import Fields, MalformedError, check_revision
from boardlet_bridge.core.desired import identity_of, reconcile
from boardlet_bridge.core.event import Effect, Refused
from boardlet_bridge.core.model import Model
from boardlet_bridge.core.session import ask, ask_for_traceback, ask_once, heard, introduce, refusal_of
from boardlet_bridge.core.state import Board, Identity, Link, PropertyError
from boardlet_bridge.core.value import ValueRefused

MAX_SEQUENCE: Final = 2**30
MAX_INDEX: Final = 254
MAX_STRANGE: Final = 16  # what is kept of a board's nonsense, so that it cannot grow


@dataclass(frozen=True, slots=True)
class Report:
    """One parsed `r`; None where it says nothing of the matter."""

    sequence: int
    nonce: bytes | None
    names_applied: bool
    applied: Identity | None
    revision: int | None
    refused: tuple[int, bytes, int] | None
    errors: Mapping[int, int]
    health: int | None
    dropped: Mapping[str, int] | None
    values: Mapping[int, object]


def parse(fields: Fields) -> Report:
    """Check every claim of a report's body; raises MalformedError."""
    applied, revision, named = None, None, False
    if ReportKey.APPLIED in fields:
        said = fields.map[ReportKey.APPLIED]
        if isinstance(said, int):
            revision = check_revision(said)
        else:
            applied, named = identity_of(said), True
    errors = fields.child(ReportKey.ERRORS).map if ReportKey.ERRORS in fields else {}
    if not all(type(code) is int and 0 <= index <= MAX_INDEX for index, code in errors.items()):
        raise MalformedError("errors are not codes by index")
    return Report(
        sequence=fields.integer(ReportKey.SEQUENCE, 0, MAX_SEQUENCE),
        nonce=fields.octets(ReportKey.NONCE, 8) if ReportKey.NONCE in fields else None,
        names_applied=named,
        applied=applied,
        revision=revision,
        refused=refusal_of(fields.array(ReportKey.REFUSED)) if ReportKey.REFUSED in fields else None,
        errors=errors,  # type: ignore[arg-type]
        health=fields.integer(ReportKey.HEALTH) if ReportKey.HEALTH in fields else None,
        dropped=dropped.counts_of(fields) if ReportKey.COUNTERS in fields else None,
        values={index: value for index, value in fields.map.items() if 0 <= index <= MAX_INDEX},
    )


def read_report(board: Board, payload: bytes, now: float) -> list[Effect]:
    """One `r`; only a sealed one of the present epoch and in sequence moves anything. Raises MalformedError."""
    body = board.keys.open(REPORTED, payload, board.epoch) if board.epoch else None
    if body is None:
        # Either somebody else's bytes, or a board whose session this bridge has not seen: it will say who it is.
        return [Refused("wrong_seal" if board.epoch else "unknown_epoch", "report"), *introduce(board, now)]
    report = parse(Fields.decode(body))
    if board.nonce and report.nonce == board.nonce:
        return _answered(board, report, now)
    if not board.live:
        # Who sleeps is not asked: it would not hear, and this is a message of before.
        return [Refused("duplicate", "a report of before its sleep")] if board.sleep else ask_once(board, now)
    if report.sequence < board.next_sequence:
        return [Refused("duplicate", f"sequence {report.sequence}, {board.next_sequence} was due")]
    said = board.applied.revision if board.applied else 0
    if report.sequence > board.next_sequence or report.revision not in (None, said):
        gap = Refused("gap", f"sequence {report.sequence}, {board.next_sequence} was due")
        return [gap, *ask_once(board, now), *heard(board, now)]
    board.only_sensed = _only_senses(board, report)
    dropped_more = _take(board, report)
    if board.strange:
        board.only_sensed = False
    effects = [] if board.only_sensed else reconcile(board, now)
    if not board.only_sensed and _app_raised(board, report):
        effects += ask_for_traceback(board, now)
    # Afterwards, because a confirmed heartbeat counts from this report on.
    return [*dropped_more, *effects, *heard(board, now)]


def _app_raised(board: Board, report: Report) -> bool:
    # Errors and health are told when they change; an edit may fail in another way than the one before it.
    failing = report.errors if not report.names_applied else board.board_errors
    return PropertyCode.HANDLER_FAILED in failing.values() or report.health == Health.APP_FAILED


def _only_senses(board: Board, report: Report) -> bool:
    # Most reports by far: read-only values that were there before, on which neither what is asked for nor any condition
    # depends.
    if report.names_applied or report.errors or report.refused is not None or report.health is not None:
        return False
    if board.model is None or not board.model_held or board.strange:
        return False
    props, known = board.model.by_index, board.reported
    return all(index in props and not props[index].writable and props[index].name in known for index in report.values)


def _answered(board: Board, report: Report, now: float) -> list[Effect]:
    if board.live and report.sequence < board.next_sequence:
        return [Refused("duplicate", "an answer came late")]
    board.nonce = b""
    board.link, board.link_detail = Link.LIVE, ""
    board.reported, board.board_errors, board.strange = {}, {}, {}
    board.answered_at, board.proof_by = now, inf
    effects = [*_take(board, report), *reconcile(board, now)]
    news = board.birth.news if board.birth else None
    board.unshown |= board.news not in (None, news)
    board.news = news
    untold = board.birth is None or "lastCrash" not in board.birth.fields
    if untold and not board.introducing and _app_raised(board, report):
        effects += ask_for_traceback(board, now)
    return [*effects, *heard(board, now)]


def _take(board: Board, report: Report) -> list[Effect]:
    board.next_sequence = report.sequence + 1
    if report.names_applied:
        board.applied = report.applied
        if report.applied:
            board.highest_revision = max(board.highest_revision, report.applied.revision)
            if board.refused and board.refused[0] <= report.applied.revision:
                board.refused = None
    if report.refused is not None:
        board.refused = report.refused
    if report.health is not None:
        board.health = report.health
    for index, code in report.errors.items():
        if code:
            board.board_errors[index] = code
        else:
            board.board_errors.pop(index, None)
    if board.model is not None and board.model_held:
        for index, value in report.values.items():
            _value(board, board.model, index, value)
    # Under another model nothing is guessed (rule 7); the values come again with the session that follows.
    return [] if report.dropped is None else dropped.take(board, report.dropped)


def _value(board: Board, model: Model, index: int, value: object) -> None:
    board.strange.pop(index, None)
    prop = model.by_index.get(index)
    name = prop.name if prop else f"#{index}"
    try:
        if prop is None:
            raise ValueRefused("UnknownProperty", f"the board reports it, and model {model.name} does not have it")
        board.reported[name] = prop.from_wire(value)
    except ValueRefused as error:
        board.reported.pop(name, None)
        if len(board.strange) < MAX_STRANGE:
            board.strange[index] = PropertyError(name, "Board", error.reason, str(error))


def model_changed(board: Board, now: float) -> list[Effect]:
    """The model came or changed: what a live board reported without it is asked for again."""
    effects = reconcile(board, now)
    if board.live and board.model_held:
        effects += ask(board, now, Operation.REPORT)
    return effects
