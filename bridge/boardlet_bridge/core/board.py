"""One board, one step at a time: `step(board, event, now)` changes the state and returns what is to be done.

Every event goes to the feature that it belongs to; afterwards the conditions are computed anew, and a difference to
what was last shown asks for a status write. What a peer sends can make a step refuse it, never make it raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from boardlet_wire.names import DESIRED, REPORTED, SESSION, WANT

from boardlet_bridge.core import dropped
from boardlet_bridge.core.codec import DIGEST_BYTES, UID_BYTES, MalformedError
from boardlet_bridge.core.condition import Condition, Suspicion
from boardlet_bridge.core.credential import MAX_KEY_NUMBER, KeyRing
from boardlet_bridge.core.desired import read_mailbox, reconcile
from boardlet_bridge.core.event import (
    BrokerDown,
    BrokerUp,
    ClaimSeen,
    DroppedByBoard,
    Effect,
    Event,
    Message,
    ModelSeen,
    ObjectSeen,
    Refused,
    StatusSeen,
    Tick,
    Wake,
    WriteStatus,
)
from boardlet_bridge.core.file import read_want
from boardlet_bridge.core.key_number import follow
from boardlet_bridge.core.notice import notices, recall
from boardlet_bridge.core.report import model_changed, read_report
from boardlet_bridge.core.rotation import offer
from boardlet_bridge.core.session import broker_down, broker_up, read_session, tick
from boardlet_bridge.core.state import Board, Identity, Limits, Link
from boardlet_bridge.core.status import cut
from boardlet_bridge.core.verdict import conditions

FINALIZER: Final = "boardlet.dev/mailbox"
ACCEPT_RESTORE: Final = "boardlet.dev/accept-restore"
SUSPICIOUS: Final[Mapping[str, Suspicion]] = {
    "wrong_seal": "WrongSeal",
    "malformed": "Malformed",
    "revoked_key": "RevokedKey",
}
PASSING: Final = ("Pending", "Asking", "Waiting")  # reasons of Synced that may be over before anyone could read them


def new_board(board_id: str, ring: KeyRing, limits: Limits, obj: Mapping[str, Any] | None = None) -> Board:
    """The state of a Board that has just been met; its object says which key it holds."""
    board = Board(ring.board(board_id, ring.lowest), ring, limits, spec=(obj or {}).get("spec") or {})
    board.proven_key = recorded_key(obj or {})
    if board.key_number > ring.lowest:
        board.keys = ring.board(board_id, board.key_number)
    return board


def step(board: Board, event: Event, now: float) -> list[Effect]:
    """Take one event; `now` is seconds of a monotonic clock, the same for all events of a process."""
    values = dict(board.reported) if isinstance(event, Message) and event.letter == REPORTED else None
    board.only_sensed = False
    try:
        effects = _dispatch(board, event, now)
    except MalformedError as error:
        effects = [Refused("malformed", str(error))]
    if not board.only_sensed:
        # Before a question that goes out with it: once that is answered, a board may sleep.
        effects = offer(board, now) + effects
    _suspect(board, effects, now)
    return effects + _show(board, now, values is not None and values != board.reported)


def _dispatch(board: Board, event: Event, now: float) -> list[Effect]:
    match event:
        case Message(letter=letter, payload=payload):
            return _message(board, letter, payload, now)
        case Tick():
            return tick(board, now) + reconcile(board, now)
        case ObjectSeen(object=obj):
            return _object(board, obj, now)
        case StatusSeen(status=status):
            inherit(board, status)
            return []
        case ModelSeen(model=model, reason=reason, message=message):
            board.model, board.model_reason, board.model_message = model, reason, message
            return model_changed(board, now)
        case ClaimSeen(rival=rival):
            lost = board.rival and not rival
            board.rival = rival
            return broker_up(board, now) if lost and board.broker_up else reconcile(board, now)
        case BrokerUp():
            return broker_up(board, now)
        case BrokerDown(reason=reason):
            return broker_down(board, reason)


def _message(board: Board, letter: str, payload: bytes, now: float) -> list[Effect]:
    if letter in (REPORTED, WANT) and not board.key_number:
        return [Refused("revoked", letter)]
    if letter == REPORTED:
        return read_report(board, payload, now)
    if letter == SESSION:
        return read_session(board, payload, now)
    if letter == DESIRED:
        return read_mailbox(board, payload, now)
    if letter == WANT:
        return read_want(board, payload, now)
    return [Refused("unknown_topic", letter)]


def _object(board: Board, obj: Mapping[str, Any], now: float) -> list[Effect]:
    meta = obj["metadata"]
    first = not board.uid
    board.uid = short_uid(meta["uid"])
    board.title = f"-n {meta['namespace']} board {meta['name']}"
    board.generation = int(meta.get("generation") or 0)
    board.spec = obj.get("spec") or {}
    board.accepted_restore = str((meta.get("annotations") or {}).get(ACCEPT_RESTORE, ""))
    board.deleting = bool(meta.get("deletionTimestamp"))
    board.finalizer = FINALIZER in (meta.get("finalizers") or ())
    status = obj.get("status") or {}
    board.recorded_key = recorded_key(obj)
    if not board.broker_up:  # another replica may have heard it meanwhile
        board.proven_key = max(board.proven_key, board.recorded_key)
    board.recorded = _recorded(board.uid, status.get("desired"))
    if first:
        inherit(board, status)
    if first and board.recorded is not None:
        # And it says nothing of the board before it has read the broker and asked, or had the time to.
        board.hold_until = max(board.hold_until, now + board.limits.start_grace_s)
    if follow(board):
        return broker_up(board, now)
    return reconcile(board, now)


def inherit(board: Board, status: Mapping[str, Any]) -> None:
    """Begin with what an earlier bridge, or another replica, has shown and told last."""
    board.told = recall(status)
    board.inherited = _conditions(status)
    dropped.recall(board, status)
    if not board.answered_at:
        # What was known last is shown until the board has answered.
        board.reported = dict(status.get("reported") or {})


def stands(board: Board, status: Mapping[str, Any]) -> bool:
    """Whether a status has the conditions that were shown last."""
    return _stand(board.shown, _conditions(status))


def _conditions(status: Mapping[str, Any]) -> frozenset[tuple[object, ...]]:
    names = ("type", "status", "reason", "message", "observedGeneration")
    return frozenset(tuple(c.get(name) for name in names) for c in status.get("conditions") or ())


def recorded_key(obj: Mapping[str, Any]) -> int:
    """The key number that a board has spoken under, by its object's status; 0: by that it never did."""
    said = ((obj.get("status") or {}).get("board") or {}).get("keyNumber")
    return said if type(said) is int and 0 < said <= MAX_KEY_NUMBER else 0


def short_uid(uid: str) -> bytes:
    """The first bytes of a Kubernetes UID, as the wire carries it."""
    return bytes.fromhex(uid.replace("-", ""))[:UID_BYTES]


def _recorded(uid: bytes, desired: Mapping[str, Any] | None) -> Identity | None:
    try:
        digest = bytes.fromhex((desired or {})["digest"])
        identity = Identity(uid, int((desired or {})["revision"]), digest, int((desired or {})["generation"]))
    except (KeyError, ValueError, TypeError):
        return None  # nothing recorded yet, or not by a bridge of ours: the other sources speak
    return identity if len(digest) == DIGEST_BYTES else None


def _suspect(board: Board, effects: list[Effect], now: float) -> None:
    suspicion: Suspicion | None = None
    for effect in effects:
        if isinstance(effect, Refused):
            dropped.count(board, effect, now)
            suspicion = suspicion or SUSPICIOUS.get(effect.cause)
        elif isinstance(effect, DroppedByBoard) and effect.cause == "wrongSeal" and effect.in_same_boot:
            suspicion = suspicion or "WrongSealAtBoard"
    if suspicion:
        board.suspicion = suspicion
        board.suspicion_until = now + board.limits.suspicion_s
        effects.append(Wake(board.suspicion_until))
        board.settled = False
        return
    if board.suspicion and now >= board.suspicion_until:
        board.suspicion = None
        board.settled = False


def _show(board: Board, now: float, values_changed: bool) -> list[Effect]:
    board.unshown |= values_changed
    if not board.uid:
        return []  # there is no object yet that could show it
    decided = board.shown if board.settled and board.only_sensed else conditions(board)
    board.settled = False
    if decided == board.shown:
        urgent, board.settled = False, True
        if not board.unshown and not board.untold:
            return []
    elif now < (until := _passing(board, decided)) and not board.unrecorded:
        return [Wake(until)]
    else:
        # What the object has had since an earlier bridge, or another replica, is no news: thousands of boards that are
        # taken over at once must not keep the edits of some of them waiting.
        urgent = board.unrecorded or not _stand(decided, board.inherited)
        board.untold = board.settled = board.unshown = True
        board.inherited = frozenset()
        board.hold_until = 0.0  # this is over: what comes next has a grace of its own
    effects: list[Effect] = [WriteStatus(urgent)] if board.unshown else []
    if board.untold:
        effects += notices(board, decided, now)
    board.shown, board.unshown, board.untold = decided, False, False
    return effects


def _stand(decided: tuple[Condition, ...], inherited: frozenset[tuple[object, ...]]) -> bool:
    shown = ((c.type, c.status, c.reason, cut(c.message), c.generation) for c in decided)
    return bool(inherited) and inherited == frozenset(shown)


def _passing(board: Board, decided: tuple[Condition, ...]) -> float:
    # Until when this may settle by itself and cost no write of its own.
    until = 0.0
    switching = board.link is Link.GONE and board.switching
    if switching or any(c.type == "Synced" and c.reason in PASSING for c in decided):
        until = board.hold_until
    others = [c for c in decided if c.type != "Connected"]
    answered = board.live and others == [c for c in board.shown if c.type != "Connected"]
    if answered or board.link is Link.ASKING:
        until = max(until, board.awake_until)  # a sleeping board's turn: it answers, and sleeps again
    return until
