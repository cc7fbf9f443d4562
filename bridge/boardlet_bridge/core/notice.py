"""Notices: what a person wants to read in `kubectl describe board`, as Kubernetes Events.

A status says how things are, a notice that something has happened. Both come from the same conditions, so that they
cannot contradict each other; what a new bridge finds in the status has been told already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from boardlet_bridge.core.condition import FALSE, TRUE, UNKNOWN, Condition

if TYPE_CHECKING:
    from boardlet_bridge.core.state import Board

Kind = Literal["Normal", "Warning"]
Normal = Literal["Connected", "Rebooted", "Resolved"]
Trouble = Literal[
    "AppFailed",
    "Drifted",
    "DuplicateBoardID",
    "Malformed",
    "MessagesRefused",
    "ModelInvalid",
    "ModelNotFound",
    "ModelUnavailable",
    "PropertyErrors",
    "Refused",
    "Restored",
    "Reverted",
    "Revoked",
    "RevisionsExhausted",
    "SafeMode",
    "StorageFailed",
    "Throttled",
    "TooLarge",
]
Alarm = Literal["Crashed", "Disconnected", "Flapping", "Overdue", "UnsupportedProtocol"]
Happening = Normal | Trouble | Alarm

# Reasons of Synced and Healthy that are told when they come; the others pass by themselves, or follow from these.
TROUBLES: Final[Mapping[str, Trouble]] = {name: name for name in get_args(Trouble)}
CRASHES: Final = ("Crash", "Watchdog")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something has happened: told as an Event of the Board."""

    happening: Happening
    message: str

    @property
    def kind(self) -> Kind:
        return "Normal" if self.happening in get_args(Normal) else "Warning"


@dataclass(slots=True)
class Told:
    """What has been told of one board, so that nothing is told twice."""

    connected: str = UNKNOWN  # the last one that was not Unknown
    troubles: dict[str, str] = field(default_factory=dict)  # by type of condition
    boots: int = 0
    ends: tuple[float, ...] = ()  # when its latest connections ended
    quiet_until: float = 0.0  # it flaps: comings and goings are not told


def recall(status: Mapping[str, Any]) -> Told:
    """What an earlier bridge has told, by the status that it left."""
    told = Told(boots=int((status.get("board") or {}).get("bootCount") or 0))
    for condition in status.get("conditions") or ():
        _remember(told, condition.get("type", ""), condition.get("status", ""), condition.get("reason", ""))
    return told


def _remember(told: Told, type_: str, status: str, reason: str) -> None:
    if type_ == "Connected" and (status != UNKNOWN or reason != "Pending"):
        # Unknown for another reason than that nobody looked: which it was cannot be known, so that nothing is told.
        told.connected = FALSE if status == FALSE else TRUE
    elif (type_ == "MessagesRefused" and status == TRUE) or _is_trouble(type_, status, reason):
        told.troubles[type_] = reason


def _is_trouble(type_: str, status: str, reason: str) -> bool:
    # A user's error is told whether the board is there or not; Healthy then repeats the reason of Connected.
    return reason in TROUBLES and (type_ == "Synced" or (type_ == "Healthy" and status == FALSE)) and status != TRUE


def notices(board: Board, decided: tuple[Condition, ...], now: float) -> list[Notice]:
    """What has happened since the last time, by the conditions that are now shown."""
    if board.deleting:
        return []
    by_type = {condition.type: condition for condition in decided}
    found = _connection(board, by_type["Connected"], now)
    for type_ in ("Synced", "Healthy"):
        found += _trouble(board.told, by_type[type_])
    refused = by_type.get("MessagesRefused")
    if refused is None:
        board.told.troubles.pop("MessagesRefused", None)
    elif board.told.troubles.setdefault("MessagesRefused", "") != refused.reason:
        board.told.troubles["MessagesRefused"] = refused.reason
        found.append(Notice("MessagesRefused", refused.message))
    return found


def _trouble(told: Told, condition: Condition) -> list[Notice]:
    before = told.troubles.get(condition.type)
    if _is_trouble(condition.type, condition.status, condition.reason):
        trouble = TROUBLES[condition.reason]
        if trouble == before:
            return []
        told.troubles[condition.type] = trouble
        return [Notice(trouble, condition.message)]
    if before is None or condition.status != TRUE:
        return []  # that a board is not there ends no trouble
    del told.troubles[condition.type]
    return [Notice("Resolved", f"{before}: {condition.message}")]


def _connection(board: Board, condition: Condition, now: float) -> list[Notice]:
    told = board.told
    if condition.status == UNKNOWN:
        return []
    before, told.connected = told.connected, condition.status
    if condition.status == FALSE:
        if before != TRUE:
            return []
        if condition.reason == "Overdue" or condition.reason == "UnsupportedProtocol":
            return [Notice(condition.reason, condition.message)]
        return _ended(board, condition, now)
    boots, told.boots = told.boots, _boots(board) or told.boots
    booted = 0 < boots < told.boots
    if now < told.quiet_until:
        return []
    if booted and board.birth is not None and board.birth.fields.get("bootCause") in CRASHES:
        return [Notice("Crashed", _introduction(board))]
    if booted:
        return [Notice("Rebooted", _introduction(board))]
    return [Notice("Connected", _introduction(board))] if before != TRUE else []


def _ended(board: Board, condition: Condition, now: float) -> list[Notice]:
    told, limits = board.told, board.limits
    told.ends = (*(at for at in told.ends if at > now - limits.flapping_s), now)
    if now < told.quiet_until:
        return []
    if len(told.ends) < limits.flapping_ends:
        return [Notice("Disconnected", condition.message)]
    told.ends, told.quiet_until = (), now + limits.flapping_s
    often = f"{limits.flapping_ends} connections ended within {limits.flapping_s / 60:.0f} minutes"
    return [Notice("Flapping", f"{often}: look at its supply and its radio; the last time, {condition.message}")]


def _boots(board: Board) -> int:
    return int(board.birth.fields.get("bootCount") or 0) if board.birth else 0


def _introduction(board: Board) -> str:
    if board.birth is None:
        return "the board answers"
    said = board.birth.fields
    crash = str(said.get("lastCrash") or "").strip().rpartition("\n")[2]
    last = f": {crash}" if crash and said.get("bootCause") in CRASHES else ""
    agent = f"; agent {said['agent']}" if "agent" in said else ""
    return f"the board answers; boot {_boots(board)}, cause {said.get('bootCause', 'Unknown')}{last}{agent}"
