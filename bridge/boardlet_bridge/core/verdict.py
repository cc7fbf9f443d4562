"""The verdict: which conditions follow from what is known of a board (requirement 1: the status never lies)."""

from __future__ import annotations

from typing import Final

from boardlet_wire.names import Health, PropertyCode

from boardlet_bridge.core.condition import FALSE, TRUE, UNKNOWN, Condition, Obstacle, Reason, Status, Type, summary
from boardlet_bridge.core.reason import LINKS, PROPERTY_REASONS, REFUSALS, REVOKED, SUSPICIONS
from boardlet_bridge.core.rotation import under_way
from boardlet_bridge.core.state import Board, Link, PropertyError
from boardlet_bridge.core.value import written

MAX_SAID: Final = 3  # errors in one message; all of them are in status.errors


def conditions(board: Board) -> tuple[Condition, ...]:
    """Ready, Connected, Synced, Healthy, and those that are there only while true."""
    connected = _connected(board)
    synced = _synced(board)
    healthy = _healthy(board)
    decided = [summary((connected, synced, healthy), synced.reason), connected, synced, healthy]
    if board.restored_generation:
        decided.append(_condition(board, "Restored", TRUE, "OlderThanBoard", _restored_message(board)))
    if board.suspicion:
        decided.append(_condition(board, "MessagesRefused", TRUE, board.suspicion, SUSPICIONS[board.suspicion]))
    if number := under_way(board):
        decided.append(_condition(board, "Rotating", TRUE, "Pending", _rotating_message(board, number)))
    return tuple(decided)


def _condition(board: Board, type_: Type, status: Status, reason: Reason, message: str) -> Condition:
    return Condition(type_, status, reason, message, board.generation)


def _connected(board: Board) -> Condition:
    status, message = LINKS[board.link]
    detail = f" ({board.link_detail})" if board.link_detail else ""
    if board.rival:
        return _condition(board, "Connected", UNKNOWN, "DuplicateBoardID", _rival_message(board))
    if board.link is Link.NEVER and board.foreign:
        message = (
            "what the broker has of this id carries a wrong seal: the board holds another key (flash it again); "
            "if all boards say so, the bridge's root_key_file is not this site's"
        )
    if board.asleep and board.sleep is not None:
        status, message = TRUE, f"the board sleeps between its turns; it is late after {board.sleep.allowed_s} s"
    if board.link is Link.REVOKED:
        message = _revoked_message(board)
    elif board.present and board.keys.number < board.ring.first and under_way(board) < board.ring.first:
        message += (
            f". Its key, number {board.keys.number}, follows from a root key that is being replaced: give it number "
            f"{board.ring.first} (docs/operations.md, Root key)"
        )
    return _condition(board, "Connected", status, board.link.reason, message + detail)


def _rotating_message(board: Board, number: int) -> str:
    given = (
        f"the board is given key number {number} over the air once it is there; number {board.key_number}, which it "
    )
    if not board.proven_key:
        return given + (
            "is taken to have, was never heard for this Board. If it had the new one before, as when this Board was "
            f"deleted and created again, it is not let in: set spec.credential.revokedKeyNumber to {number - 1}"
        )
    return given + (
        "has, stays valid until it speaks under the new one. If it answers and this stays, its agent has no rotation: "
        "flash it"
    )


def _revoked_message(board: Board) -> str:
    if not board.rootless:
        return REVOKED
    return (
        f"the root key of the board's key, number {max(board.proven_key, board.wanted_key)}, has been removed from the "
        f"bridge: the broker lets the board in no more, and nothing of it is believed. Put that root key back, or give "
        f"the board key number {board.ring.first} and flash it (docs/operations.md, Root key)"
    )


def _rival_message(board: Board) -> str:
    own = board.keys.board_id
    return f"spec.boardID {own} is served for Board {board.rival}, which was there first: delete one of them"


def _restored_message(board: Board) -> str:
    generation = board.restored_generation
    return (
        f"the board was asked for generation {generation}, the object is at {board.generation}: the cluster went back. "
        f"Nothing is sent until you make the spec right and say: kubectl annotate --overwrite "
        f"{board.title} boardlet.dev/accept-restore={generation}"
    )


def _obstacle(board: Board) -> tuple[Obstacle, str] | None:
    # Whatever keeps the spec from being asked for at all, or the board from taking it; first the deepest cause.
    if board.rival:
        return "DuplicateBoardID", _rival_message(board)
    if board.link is Link.REVOKED:
        return "Revoked", _revoked_message(board)
    if board.model is None:
        return board.model_reason, board.model_message
    if board.restored_generation:
        return "Restored", _restored_message(board)
    if board.exhausted:
        return (
            "RevisionsExhausted",
            "the board, its mailbox or this object claims the highest revision that there is, so that nothing can be "
            "asked any more: delete the Board, flash the board anew, create the Board again",
        )
    if board.too_large:
        sizes = f"the desired state is {board.too_large} bytes, the board takes {board.receive_limit}"
        return "TooLarge", f"{sizes}: use fewer or shorter values"
    if board.mint_delayed_until:
        return "Throttled", "the spec changes faster than a flash should be written; the last value will be sent"
    if board.refused and board.desired and _refuses(board.refused, board):
        code = board.refused[2]
        return REFUSALS.get(code, ("Refused", f"the board refuses it with code {code}"))
    return None


def _refuses(refused: tuple[int, bytes, int], board: Board) -> bool:
    # What could not be read has no revision. It is not what is asked, if the board has confirmed that.
    if refused[:2] == (0, b""):
        return not board.confirmed
    return board.desired is not None and refused[:2] == (board.desired.identity.revision, board.desired.identity.digest)


def _synced(board: Board) -> Condition:
    obstacle = _obstacle(board)
    if not board.present:
        # Never a claim about a board that is not there; but the reason may already say what its user must do.
        reason, message = obstacle or (board.link.reason, "not known while the board does not answer")
        return _condition(board, "Synced", UNKNOWN, reason, message)
    if obstacle:
        return _condition(board, "Synced", FALSE, *obstacle)
    if not board.finalizer and not board.deleting:
        message = "nothing is sent before the bridge's finalizer is on the object; may the bridge patch boards?"
        return _condition(board, "Synced", FALSE, "Pending", message)
    if board.asleep and not (board.confirmed and board.applied and board.applied.generation == board.generation):
        return _condition(board, "Synced", FALSE, "Pending", "it waits in the mailbox until the board wakes")
    if not board.confirmed or board.desired is None or board.desired.identity.generation != board.generation:
        return _condition(board, "Synced", FALSE, "Pending", "sent, the board has not confirmed it yet")
    if board.applied is None or board.applied.generation != board.generation:
        return _condition(board, "Synced", FALSE, "Pending", "sent, the board has not confirmed the generation yet")
    if not board.model_held:
        return _condition(board, "Synced", FALSE, "Pending", "the board has not switched to its model yet")
    errors = property_errors(board)
    if errors:
        said = "; ".join(f"{error.property}: {error.message}" for error in errors[:MAX_SAID])
        more = f"; and {len(errors) - MAX_SAID} more, see status.errors" if len(errors) > MAX_SAID else ""
        return _condition(board, "Synced", FALSE, "PropertyErrors", said + more)
    drifted = drift(board)
    if drifted:
        return _condition(board, "Synced", FALSE, "Drifted", "the board reads back: " + ", ".join(drifted))
    return _condition(board, "Synced", TRUE, "Synced", f"the board runs generation {board.generation}")


def _healthy(board: Board) -> Condition:
    if not board.present or board.birth is None:
        reason = _connected(board).reason
        return _condition(board, "Healthy", UNKNOWN, reason, "not known while the board does not answer")
    if board.birth.safe_mode or board.health == Health.SAFE_MODE:
        message = "four boots in a row failed: only network and agent run; see status.board.lastCrash"
        return _condition(board, "Healthy", FALSE, "SafeMode", message)
    if board.health == Health.APP_FAILED:
        return _condition(board, "Healthy", FALSE, "AppFailed", "app.py failed; see status.board.lastCrash")
    if board.health != Health.RUNNING:
        message = f"the board says code {board.health}, which this bridge does not know: upgrade the bridge"
        return _condition(board, "Healthy", UNKNOWN, "UnknownHealth", message)
    return _condition(board, "Healthy", TRUE, "Running", "agent, drivers and app run")


def property_errors(board: Board) -> list[PropertyError]:
    """Errors by property from bridge and board, in the same words, ordered by name; one a property."""
    errors = {error.property: error for error in _valueless(board)}
    for index, code in board.board_errors.items():
        prop = board.model.by_index.get(index) if board.model and board.model_held else None
        name = prop.name if prop else f"#{index}"
        reason, message = PROPERTY_REASONS.get(code, ("Refused", f"the board says code {code}"))
        errors[name] = PropertyError(name, "Board", reason, message)
    for strange in board.strange.values():
        errors[strange.property] = strange
    for error in board.spec_errors:
        errors[error.property] = error
    return [errors[name] for name in sorted(errors)]


def _valueless(board: Board) -> list[PropertyError]:
    # The board tells it of what is asked. What only it could report would just never be there: without a driver the app
    # gives such a value, and which app runs is told once a session. One that has an app may do so at any time.
    birth = board.birth
    if board.model is None or birth is None or not board.model_held or birth.app_digest or birth.safe_mode:
        return []
    reason, message = PROPERTY_REASONS[PropertyCode.NO_HANDLER]
    silent = (p.name for p in board.model.by_index.values() if not (p.writable or p.driven or p.name in board.reported))
    return [PropertyError(name, "Bridge", reason, message) for name in silent]


def drift(board: Board) -> list[str]:
    """The writable properties whose value as read back is not the one asked for, as "name is X, asked Y"."""
    if board.model is None or board.desired is None:
        return []
    drifted = []
    for index, wanted in board.desired.values.items():
        prop = board.model.by_index[index]
        have = board.reported.get(prop.name)
        if have != wanted:
            is_now = "not reported" if have is None else written(have)
            drifted.append(f"{prop.name} is {is_now}, asked {written(wanted)}")
    return drifted
