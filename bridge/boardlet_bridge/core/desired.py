"""Desired: from spec and model to the retained mailbox (rules 1, 2 and 3 of docs/design.md).

The revision is chosen from what can be seen, never counted in memory: the highest of status.desired, mailbox and
the board's own word. If that one already has the wanted digest it is kept, else the next is minted. A new bridge, a
late bridge and a restored cluster therefore choose alike, and a board never goes backwards.
"""

from __future__ import annotations

from typing import Final

from boardlet_wire.names import (
    DEFAULT_HEARTBEAT_S,
    DEFAULT_LOG_LEVEL,
    DESIRED,
    REVISION_MAX,
    SESSION,
    DesiredKey,
    RefusalCode,
    SettingKey,
    StateKey,
)
from boardlet_wire.seal import digest

from boardlet_bridge.core.codec import (
    DIGEST_BYTES,
    UID_BYTES,
    Fields,
    MalformedError,
    check_octets,
    check_revision,
    encode,
)
from boardlet_bridge.core.event import Effect, Publish, Refused, SetFinalizer, Wake
from boardlet_bridge.core.key_number import opens_mailbox
from boardlet_bridge.core.model import Model
from boardlet_bridge.core.state import Board, Desired, Identity, Link, PropertyError
from boardlet_bridge.core.value import Value, ValueRefused

LOG_LEVELS: Final = ("Error", "Warning", "Info", "Debug")


def read_mailbox(board: Board, payload: bytes, now: float) -> list[Effect]:
    """The retained desired as the broker has it; only what is read here counts as mailed."""
    board.mailbox = payload
    board.mailbox_identity = None
    effects: list[Effect] = []
    if payload:
        body = opens_mailbox(board, payload)
        if body is None:
            # Under a key that is not accepted any more it is no wonder: it is replaced, or cleared.
            cause = "former_key" if board.lowest_key else "wrong_seal"
            effects.append(Refused(cause, "the mailbox holds a desired that no bridge of this site sealed"))
        else:
            try:
                board.mailbox_identity = decode_identity(body)
            except MalformedError as error:
                effects.append(Refused("malformed", f"mailbox: {error}"))
    return effects + reconcile(board, now)


def decode_identity(body: bytes | memoryview) -> Identity:
    """The identity that a desired's body names; raises MalformedError."""
    fields = Fields.decode(body)
    return Identity(
        uid=fields.octets(DesiredKey.UID, UID_BYTES),
        revision=fields.integer(DesiredKey.REVISION, 1, REVISION_MAX),
        digest=digest(fields.octets(DesiredKey.STATE)),
        generation=fields.integer(DesiredKey.GENERATION),
    )


def identity_of(items: object) -> Identity | None:
    """[uid, revision, digest, generation] as boards send it; None for nothing applied; raises MalformedError."""
    if type(items) is not list or len(items) < 4:
        raise MalformedError("applied is not an array of four")
    revision = check_revision(items[1])
    if type(items[3]) is not int or items[3] < 0:
        raise MalformedError("generation is not a number")
    if revision == 0:
        return None
    return Identity(check_octets(items[0], UID_BYTES), revision, check_octets(items[2], DIGEST_BYTES), items[3])


def reconcile(board: Board, now: float) -> list[Effect]:
    """Bring mailbox and object into step; safe to call at any time, does nothing when nothing is to be done."""
    if board.deleting:
        return _clear(board, now)
    if board.rival or not (board.broker_up and board.mailbox_known):
        return []
    if not board.finalizer:
        return [SetFinalizer(True)]
    if not board.key_number:
        return _empty(board, now) if board.mailbox or not board.session_cleared else []
    board.restored_generation = _restored(board)
    if board.restored_generation or board.model is None:
        return []
    if board.link is Link.VERSION:
        return []
    effects = _mint(board, board.model, now)
    return effects + _mail(board, now)


def _restored(board: Board) -> int:
    # Absence proves nothing, but a later generation of the very same object proves that the object went back: one that
    # the board says, or the mailbox, or one that was mailed and may be on its way yet.
    asked = board.desired.identity if board.desired else None
    seen = [i.generation for i in (board.applied, board.mailbox_identity, asked) if i and i.uid == board.uid]
    highest = max(seen, default=0)
    if highest > board.generation and board.accepted_restore != str(highest):
        return highest
    return 0


def build_state(board: Board, model: Model) -> tuple[bytes, dict[int, Value], tuple[PropertyError, ...]]:
    """The whole state that spec and model ask for, its values by index, and what cannot be asked for."""
    wanted = board.spec.get("properties") or {}
    values: dict[int, Value] = {}
    errors: list[PropertyError] = []
    for name, value in wanted.items():
        prop = model.by_name.get(name)
        try:
            if prop is None:
                raise ValueRefused("UnknownProperty", f"model {model.name} has no such property")
            if not prop.writable:
                raise ValueRefused("ReadOnly", "must not be set, the model says that it is ReadOnly")
            values[prop.index] = prop.to_wire(value)
        except ValueRefused as error:
            errors.append(PropertyError(name, "Bridge", error.reason, str(error)))
    for prop in model.by_index.values():
        if prop.writable and prop.name not in wanted and prop.default is not None:
            values[prop.index] = prop.default
    settings = board.spec.get("settings") or {}
    level = LOG_LEVELS.index(settings.get("logLevel") or "Warning")
    changed: dict[int, object] = {}
    if board.heartbeat_s != DEFAULT_HEARTBEAT_S:
        changed[SettingKey.HEARTBEAT_S] = board.heartbeat_s
    if level != DEFAULT_LOG_LEVEL:
        changed[SettingKey.LOG_LEVEL] = level
    if board.sleep_s:
        changed[SettingKey.SLEEP_S] = board.sleep_s
    state: dict[int, object] = {StateKey.MODEL: model.digest, **values}
    if changed:
        state[StateKey.SETTINGS] = changed
    return encode(state), values, tuple(errors)


def _mint(board: Board, model: Model, now: float) -> list[Effect]:
    state, values, board.spec_errors = build_state(board, model)
    wanted = digest(state)
    identity = _choose(board, wanted)
    board.exhausted = identity.revision > REVISION_MAX
    if board.exhausted:
        return []
    if board.desired is not None and board.desired.identity == identity and board.desired.model is model:
        board.mint_delayed_until = 0.0  # the spec went back while another one waited
        return []
    kept = board.desired is not None and board.desired.identity.revision == identity.revision
    known = kept or identity.same(board.recorded) or identity.same(board.mailbox_identity)
    if not known and not _may_mint(board, now):
        return [Wake(board.mint_delayed_until)]
    board.mint_delayed_until = 0.0
    body = encode(
        {
            DesiredKey.UID: board.uid,
            DesiredKey.REVISION: identity.revision,
            DesiredKey.GENERATION: identity.generation,
            DesiredKey.STATE: state,
        }
    )
    payload = board.keys.close(DESIRED, body)
    shown = {index: model.by_index[index].from_wire(value) for index, value in values.items()}
    board.desired = Desired(identity, shown, payload, model)
    board.mailed_at = 0.0
    board.hold_until = max(board.hold_until, now + board.limits.pending_grace_s)
    return []


def _choose(board: Board, wanted: bytes) -> Identity:
    seen = [i for i in (board.recorded, board.mailbox_identity, board.applied) if i is not None]
    if board.desired is not None:
        seen.append(board.desired.identity)
    top = max((i.revision for i in seen), default=0)
    top = max(top, board.highest_revision, board.refused[0] if board.refused else 0)
    at_top = {(i.uid, i.digest) for i in seen if i.revision == top}
    keeps = at_top == {(board.uid, wanted)} and not _spent(board, top, wanted)
    return Identity(board.uid, top if keeps else top + 1, wanted, board.generation)


def _spent(board: Board, revision: int, wanted: bytes) -> bool:
    # A board does not take a revision that it runs with another content, or gave up with another content.
    if board.refused is None or board.refused[0] != revision:
        return False
    _, refused, code = board.refused
    return code == (RefusalCode.CONFLICT if refused == wanted else RefusalCode.REVERTED)


def _may_mint(board: Board, now: float) -> bool:
    # A board's flash bears a limited number of writes: a controller that edits in a loop is slowed down here.
    limits = board.limits
    if board.mint_tokens_at < 0:
        board.mint_tokens = limits.mint_burst
    else:
        gained = (now - board.mint_tokens_at) / limits.mint_interval_s
        board.mint_tokens = min(limits.mint_burst, board.mint_tokens + gained)
    board.mint_tokens_at = now
    if board.mint_tokens >= 1:
        board.mint_tokens -= 1
        return True
    missing = max(1 - board.mint_tokens, 0.001)  # sums of fractions may lack so little that no time would pass
    board.mint_delayed_until = now + missing * limits.mint_interval_s
    return False


def _mail(board: Board, now: float) -> list[Effect]:
    desired = board.desired
    if desired is None or board.mint_delayed_until or board.exhausted:
        return []
    board.too_large = len(desired.payload) if len(desired.payload) > board.receive_limit else 0
    if board.too_large or board.mailbox == desired.payload:
        return []
    again = board.mailed_at + board.limits.mail_again_s
    if board.mailed_at and now < again:
        return [Wake(again)]
    board.mailed_at = now
    return [Publish(DESIRED, desired.payload, retain=True), Wake(now + board.limits.mail_again_s)]


def _clear(board: Board, now: float) -> list[Effect]:
    if not board.finalizer:
        return []
    if board.rival:
        return [SetFinalizer(False)]  # the mailbox belongs to the rival now
    if not (board.broker_up and board.mailbox_known):
        return []
    if not board.mailbox and board.session_cleared:
        return [SetFinalizer(False)]
    return _empty(board, now)


def _empty(board: Board, now: float) -> list[Effect]:
    again = board.cleared_at + board.limits.mail_again_s
    if board.cleared_at and now < again:
        return [Wake(again)]
    board.cleared_at = now
    return [
        Publish(DESIRED, b"", retain=True),
        Publish(SESSION, b"", retain=True),
        Wake(now + board.limits.mail_again_s),
    ]
