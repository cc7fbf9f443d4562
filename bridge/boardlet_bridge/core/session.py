"""Session: is the board there, by its own word (rule 4 of docs/design.md).

A retained `here` is a memory of the broker's. The board is Connected only when it has answered, in its present epoch,
a nonce that this process made; a replayed session or report can therefore never look alive.
"""

from __future__ import annotations

from math import inf
from typing import Final

from boardlet_wire.names import (
    COMMAND,
    PROTOCOL_VERSION,
    SESSION,
    BootCause,
    CommandKey,
    Operation,
    SessionKey,
    SessionState,
)

from boardlet_bridge.core.codec import (
    DIGEST_BYTES,
    EPOCH_BYTES,
    Fields,
    MalformedError,
    Scalar,
    check_octets,
    check_revision,
    encode,
)
from boardlet_bridge.core.desired import identity_of, reconcile
from boardlet_bridge.core.event import Effect, Publish, Refused, Wake
from boardlet_bridge.core.key_number import former, open_session
from boardlet_bridge.core.state import Birth, Board, Identity, Link, Sleep

MAX_TEXT: Final = 64
MAX_CRASH: Final = 1024
MAX_SLEEP_S: Final = 2**31 - 1
REPORT_FOLLOWS_S: Final = 1.0  # the report follows such a birth at once; a busy board needs a moment
DOUBT: Final = 1 / 6  # of the patience is left when a silent board is asked: it was due a sixth of it before
INTRODUCTION_S: Final = 2.0  # a birth within this time of command 1 is taken as its answer
CAUSES: Final = {
    BootCause.UNKNOWN: "Unknown",
    BootCause.POWER_ON: "PowerOn",
    BootCause.HARD_RESET: "HardReset",
    BootCause.WATCHDOG: "Watchdog",
    BootCause.DEEP_SLEEP: "DeepSleep",
    BootCause.SOFT_RESET: "SoftReset",
    BootCause.CRASH: "Crash",
}


def ask(board: Board, now: float, operation: Operation) -> list[Effect]:
    """Ask the board for everything, with a nonce that only its answer can contain."""
    board.asks += 1
    board.nonce = board.ring.nonce(board.keys.board_id, board.asks)
    board.asked_at = now
    board.introducing = operation is Operation.INTRODUCE
    body = encode({CommandKey.NONCE: board.nonce, CommandKey.OPERATION: int(operation)})
    return [Publish(COMMAND, board.keys.close(COMMAND, body)), Wake(now + board.limits.ask_again_s)]


def arm(board: Board, now: float) -> list[Effect]:
    """One Wake a board for its deadline, however often the deadline moves: the one before it, when it comes near."""
    doubt = _doubt(board)
    if now < board.armed <= doubt:
        return []
    board.armed = doubt if now < doubt else board.deadline
    return [Wake(board.armed)]


def _doubt(board: Board) -> float:
    return board.deadline - min(board.limits.ask_again_s, board.patience_s * DOUBT)


def ask_once(board: Board, now: float) -> list[Effect]:
    """Ask for everything, unless a question is still under way."""
    waiting = bool(board.nonce) and now < board.asked_at + board.limits.ask_again_s
    return [] if waiting else ask(board, now, Operation.REPORT)


def heard(board: Board, now: float) -> list[Effect]:
    """A live board has spoken: its deadline moves, but not beyond that of a question that it owes an answer.

    A seal tells who spoke, not when: whoever holds messages back could let a dead board speak on for ever (rule 4).
    """
    effects: list[Effect] = []
    if board.proof_by == inf and now >= board.answered_at + board.limits.proof_heartbeats * board.heartbeat_s:
        board.proof_by = now + board.patience_s
        effects = ask_once(board, now)
    board.deadline = min(now + board.patience_s, board.proof_by)
    return effects + arm(board, now)


def introduce(board: Board, now: float) -> list[Effect]:
    """Ask a board whose epoch is not known to say who it is, at most once in ask_again_s."""
    if now < board.introduced_at + board.limits.ask_again_s:
        return []
    board.introduced_at = now
    return ask(board, now, Operation.INTRODUCE)


def ask_for_traceback(board: Board, now: float) -> list[Effect]:
    """Have the board say again who it is, soon: what its app.py raised stands in its session and nowhere else."""
    due = board.introduced_at + board.limits.ask_again_s
    board.traceback_due = now < due
    return [Wake(due)] if board.traceback_due else introduce(board, now)


def broker_up(board: Board, now: float) -> list[Effect]:
    """The broker is there and has told all that it retains: put the question to the board, start its deadline."""
    board.broker_up = board.mailbox_known = True
    board.mailed_at = board.cleared_at = 0.0
    board.introduced_at = now
    effects = reconcile(board, now)
    if board.link is Link.BROKER and not board.key_number:
        board.link = Link.REVOKED
    if board.rival or board.deleting or board.link in (Link.VERSION, Link.REVOKED):
        return effects
    if board.link in (Link.WAITING, Link.BROKER):
        board.link = Link.ASKING
        board.deadline = now + board.patience_s
        grace = board.limits.ask_grace_s if board.recorded else board.limits.pending_grace_s
        board.hold_until = now + grace
        effects += arm(board, now)
    if board.link is Link.ASLEEP:
        return effects  # nobody would hear the question; it is asked when the board wakes
    # A retained `gone` may be the late will of an older connection, so such a board is asked too.
    known = board.link is Link.ASKING and bool(board.epoch)
    return effects + ask(board, now, Operation.REPORT if known else Operation.INTRODUCE)


def broker_down(board: Board, reason: str) -> list[Effect]:
    """Nothing is known of the board while the broker is away; what it retains will be told anew."""
    board.broker_up = board.mailbox_known = board.session_cleared = False
    board.mailbox, board.mailbox_identity = b"", None
    board.link, board.link_detail = Link.BROKER, reason
    board.epoch, board.nonce = b"", b""
    if board.sleep is None:
        board.birth = None  # who sleeps is still asleep when the broker is back, and will say nothing until it wakes
    return []


def read_session(board: Board, payload: bytes, now: float) -> list[Effect]:
    """A message on the session topic: birth, sleep, will, or the clearing of the retained one."""
    board.session_cleared = not payload
    if not payload:
        return reconcile(board, now) if board.deleting or not board.key_number else []
    body = open_session(board, payload) if board.key_number else None
    board.foreign = body is None
    if body is None:
        return _unopened(board, payload, now)
    fields = Fields.decode(body)
    if fields.integer(SessionKey.KEY_NUMBER) != board.keys.number:
        raise MalformedError("a session names another key than that of its seal")
    version = fields.integer(SessionKey.VERSION)
    if version > PROTOCOL_VERSION:
        board.link, board.link_detail = Link.VERSION, f"it speaks version {version}"
        return []
    state = fields.integer(SessionKey.STATE)
    epoch = fields.octets(SessionKey.EPOCH, EPOCH_BYTES)
    if state == SessionState.HERE:
        return _born(board, fields, epoch, now)
    if board.epoch and epoch != board.epoch:
        return [Refused("stale_will", "a session of an older connection ended late")]
    if board.link is Link.VERSION:
        board.link = Link.GONE
    ended_in_sleep = board.sleep is not None and board.sleep.epoch == epoch
    if state == SessionState.ASLEEP or ended_in_sleep:
        # A will may follow the sleep: the radio went off before the broker had heard the end of the connection.
        return _asleep(board, fields, epoch, now)
    if not board.epoch and board.link is Link.ASKING:
        # Asked already: the answer, or the deadline, says more than a will of an unknown connection.
        return []
    board.epoch = epoch
    board.nonce = b""
    board.link, board.link_detail = Link.GONE, ""
    board.switching = board.switches(now)
    if board.switching:
        board.hold_until = now + board.limits.switch_s
    return []


def _unopened(board: Board, payload: bytes, now: float) -> list[Effect]:
    body = former(board, payload)
    if body is None:
        return [Refused("wrong_seal", "session")]
    # A will under a revoked key is the end of what was revoked; everything else is somebody who uses it now. What is
    # retained of it is cleared, so that the next bridge does not take it for news.
    gone = Fields.decode(body).integer(SessionKey.STATE) == SessionState.GONE
    refused = Refused("stale_will" if gone else "revoked_key", "session")
    return [refused, Publish(SESSION, b"", retain=True), *reconcile(board, now)]


def _asleep(board: Board, fields: Fields, epoch: bytes, now: float) -> list[Effect]:
    if board.sleep is None or board.sleep.epoch != epoch:
        known = SessionKey.SLEEP_S in fields
        allowed = board.allowed_s(fields.integer(SessionKey.SLEEP_S, 0, MAX_SLEEP_S) if known else board.sleep_s)
        board.sleep = Sleep(epoch, now + allowed, allowed, proven=board.live)
        if epoch != board.epoch:
            board.birth = None  # of an earlier session
    # Else it is the same word again, as after a reconnect of the broker's: its time runs on.
    board.epoch, board.nonce = epoch, b""
    board.link, board.link_detail = Link.ASLEEP if now < board.sleep.until else Link.OVERDUE, ""
    board.deadline = board.sleep.until
    return arm(board, now)


def _born(board: Board, fields: Fields, epoch: bytes, now: float) -> list[Effect]:
    if board.sleep is not None and board.sleep.epoch == epoch:
        return [Refused("duplicate", "the birth of a session that has ended in sleep")]
    birth, applied, refused = read_birth(fields)
    board.birth, board.untold = birth, True
    if applied:
        board.highest_revision = max(board.highest_revision, applied.revision)
    board.applied, board.refused = applied, refused
    if epoch == board.epoch and board.link in (Link.LIVE, Link.ASKING):
        return reconcile(board, now)
    if board.asleep:
        board.awake_until = now + board.limits.awake_s
    board.sleep, board.traceback_due = None, False
    board.epoch = epoch
    board.link = Link.ASKING if board.broker_up else Link.WAITING
    board.link_detail = ""
    board.deadline = now + board.patience_s
    board.hold_until = max(board.hold_until, now + board.limits.pending_grace_s)
    if not board.broker_up:
        return []  # a retained one: it is asked when all that is retained has been read
    effects = [*reconcile(board, now), *arm(board, now)]
    if board.nonce and board.introducing and now < board.asked_at + INTRODUCTION_S:
        # This birth is the answer to our question, and the report follows it; unless the board has just booted and the
        # question was lost.
        soon = now + REPORT_FOLLOWS_S
        board.asked_at = soon - board.limits.ask_again_s
        return [*effects, Wake(soon)]
    return effects + ask(board, now, Operation.REPORT)


def read_birth(fields: Fields) -> tuple[Birth, Identity | None, tuple[int, bytes, int] | None]:
    """What a `here` says; raises MalformedError. Keys that are absent are left out."""
    shown: dict[str, Scalar] = {
        "protocol": fields.integer(SessionKey.VERSION),
        "keyNumber": fields.integer(SessionKey.KEY_NUMBER),
    }
    texts = {
        SessionKey.AGENT: "agent",
        SessionKey.PORT: "port",
        SessionKey.MACHINE: "machine",
        SessionKey.MICROPYTHON: "micropython",
    }
    for key, name in texts.items():
        if key in fields:
            shown[name] = fields.text(key, MAX_TEXT)
    if SessionKey.MPY in fields:
        shown["mpy"] = fields.integer(SessionKey.MPY)
    if SessionKey.BOOT_COUNT in fields:
        shown["bootCount"] = fields.integer(SessionKey.BOOT_COUNT)
    cause = fields.integer(SessionKey.BOOT_CAUSE) if SessionKey.BOOT_CAUSE in fields else 0
    shown["bootCause"] = CAUSES.get(cause, "Unknown")  # type: ignore[call-overload]
    limit = fields.integer(SessionKey.RECEIVE_LIMIT, 128)
    shown["receiveLimitBytes"] = limit
    safe_mode = SessionKey.SAFE_MODE in fields and fields.flag(SessionKey.SAFE_MODE)
    shown["safeMode"] = safe_mode
    if SessionKey.CRASH in fields:
        shown["lastCrash"] = fields.text(SessionKey.CRASH, MAX_CRASH)
    model = fields.octets(SessionKey.MODEL, DIGEST_BYTES) if SessionKey.MODEL in fields else b""
    app = fields.octets(SessionKey.APP, DIGEST_BYTES) if SessionKey.APP in fields else b""
    applied = identity_of(fields.array(SessionKey.APPLIED)) if SessionKey.APPLIED in fields else None
    refused = refusal_of(fields.array(SessionKey.REFUSED)) if SessionKey.REFUSED in fields else None
    return Birth(shown, limit, model, app, safe_mode), applied, refused


def refusal_of(items: list[object]) -> tuple[int, bytes, int]:
    """[revision, digest, code] of a desired that the board refused; raises MalformedError."""
    if len(items) < 3 or type(items[2]) is not int:
        raise MalformedError("refused is not an array of three")
    raw = check_octets(items[1], 0) if items[1] == b"" else check_octets(items[1], DIGEST_BYTES)
    return check_revision(items[0]), raw, items[2]


def tick(board: Board, now: float) -> list[Effect]:
    """Deadlines: a question that was not answered, a board that fell silent."""
    effects: list[Effect] = []
    if board.link in (Link.ASKING, Link.LIVE, Link.ASLEEP):
        if now >= board.deadline:
            seen = board.link is Link.LIVE or bool(board.epoch)
            late = Link.OVERDUE if board.link is Link.ASLEEP else Link.SILENT
            board.link, board.link_detail = late if seen else Link.NEVER, ""
        else:
            effects += arm(board, now)
            if board.nonce and now >= board.asked_at + board.limits.ask_again_s:
                effects += ask(board, now, Operation.REPORT if board.epoch else Operation.INTRODUCE)
            elif board.live and board.traceback_due:
                effects += ask_for_traceback(board, now)
            elif board.live and now >= _doubt(board):
                # It may run with a longer heartbeat than was known when it spoke: it is asked before it is silent.
                effects += ask_once(board, now)
    return effects
