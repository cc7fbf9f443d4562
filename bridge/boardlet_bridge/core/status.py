"""A status as one whole snapshot (rule 6 of docs/design.md), made at the moment of writing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from boardlet_bridge.core import dropped
from boardlet_bridge.core.condition import FALSE, TRUE, Condition, Reason, Status
from boardlet_bridge.core.event import ModelSeen
from boardlet_bridge.core.state import Board
from boardlet_bridge.core.verdict import conditions, property_errors

# What crds/boards.yaml allows: a status that is refused for one long word would leave the old one standing.
MAX_MESSAGE: Final = 1024
MAX_NAME: Final = 64
MAX_ERRORS: Final = 128


def cut(message: str) -> str:
    """The message, shortened to what the kind allows."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def snapshot(board: Board, previous: Mapping[str, Any], wall: str) -> dict[str, Any]:
    """The Board's status now; `previous` gives transition times, `wall` is the present time as RFC 3339.

    What it says counts as shown from then on.
    """
    decided = conditions(board)
    if decided != board.shown:
        board.shown, board.untold = decided, True
    status: dict[str, Any] = {"conditions": _conditions(decided, previous, wall)}
    if board.confirmed and board.applied is not None:
        status["observedGeneration"] = board.applied.generation
    elif "observedGeneration" in previous:
        status["observedGeneration"] = previous["observedGeneration"]
    identity = board.desired.identity if board.desired else board.recorded
    if identity is not None:
        status["desired"] = {
            "revision": identity.revision,
            "digest": identity.digest.hex(),
            "generation": identity.generation,
        }
    if board.reported:  # an empty map, where there was a full one, is refused: the API server makes null of it
        status["reported"] = dict(sorted(board.reported.items()))
    # A spec may name properties with words of any length; cut ones must stay different, or the write is refused.
    errors = {error.property[:MAX_NAME]: error for error in property_errors(board)}
    if errors:
        status["errors"] = [
            {"property": name, "source": e.source, "reason": e.reason, "message": cut(e.message)}
            for name, e in list(errors.items())[:MAX_ERRORS]
        ]
    if counts := dropped.shown(board, previous):
        status["droppedMessages"] = counts
    status.update(_birth(board, previous))
    return status


def model_snapshot(seen: ModelSeen, obj: Mapping[str, Any], wall: str) -> dict[str, Any]:
    """The BoardModel's status now: whether boards can run it, and if not why."""
    generation = obj["metadata"]["generation"]
    status: Status = TRUE if seen.model else FALSE
    reason: Reason = "Compiled" if seen.model else seen.reason
    message = seen.message or (seen.model.advice if seen.model else "")
    accepted = Condition("Accepted", status, reason, message, generation)
    written: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": _conditions((accepted,), obj.get("status") or {}, wall),
    }
    if seen.model:
        written |= {"digest": seen.model.digest.hex(), "sizeBytes": len(seen.model.encoded)}
    return written


def _birth(board: Board, previous: Mapping[str, Any]) -> dict[str, Any]:
    if board.birth is None:
        kept = {key: previous[key] for key in ("board", "model", "app", "session") if key in previous}
        if board.unrecorded and "board" in kept:
            kept["board"] = {**kept["board"], "keyNumber": board.proven_key}
        return kept
    birth = board.birth
    said: dict[str, Any] = {"board": dict(birth.fields), "session": {"epoch": board.epoch.hex()}}
    if birth.model_digest:
        held = board.model if board.model_held else None
        said["model"] = {"digest": birth.model_digest.hex(), **({"name": held.name} if held else {})}
    if birth.app_digest:
        said["app"] = {"digest": birth.app_digest.hex()}
    return said


def _conditions(decided: tuple[Condition, ...], previous: Mapping[str, Any], wall: str) -> list[dict[str, Any]]:
    before = {c["type"]: c for c in previous.get("conditions") or ()}
    shown_as = []
    for condition in decided:
        old = before.get(condition.type) or {}
        kept = old.get("status") == condition.status and old.get("lastTransitionTime")
        shown_as.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": cut(condition.message),
                "observedGeneration": condition.generation,
                "lastTransitionTime": kept or wall,
            }
        )
    return shown_as
