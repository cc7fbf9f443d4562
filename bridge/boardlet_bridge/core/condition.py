"""Conditions as values, and the rule by which Ready follows (Knative: False beats Unknown beats True).

Every word that a status can show as a reason is listed here, and the type checker lets no other one pass; a test
compares the lists with docs/status.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["True", "False", "Unknown"]
Type = Literal["Ready", "Connected", "Synced", "Healthy", "Restored", "MessagesRefused", "Rotating", "Accepted"]
Connection = Literal[
    "Answered",
    "Asking",
    "Asleep",
    "BrokerUnreachable",
    "DuplicateBoardID",
    "Gone",
    "NeverSeen",
    "Overdue",
    "Revoked",
    "Silent",
    "UnsupportedProtocol",
    "Waiting",
]
ModelFault = Literal["ModelInvalid", "ModelNotFound", "Pending"]
Refusal = Literal["Conflict", "Malformed", "ModelUnavailable", "Refused", "Reverted", "StorageFailed", "TooLarge"]
Obstacle = ModelFault | Refusal | Literal["DuplicateBoardID", "Restored", "Revoked", "RevisionsExhausted", "Throttled"]
Suspicion = Literal["Malformed", "RevokedKey", "WrongSeal", "WrongSealAtBoard"]
Reason = (
    Connection
    | Obstacle
    | Suspicion
    | Literal["AppFailed", "Compiled", "Drifted", "OlderThanBoard", "PropertyErrors", "Running", "SafeMode"]
    | Literal["Synced", "UnknownHealth"]
)
# What is wrong with a property, in status.errors.
Fault = Literal[
    "DriverFailed",
    "HandlerFailed",
    "NoHandler",
    "NotRunning",
    "OutOfRange",
    "ReadOnly",
    "Refused",
    "TooLong",
    "UnknownProperty",
    "WrongType",
]

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition without its transition time, which is the writer's to know."""

    type: Type
    status: Status
    reason: Reason
    message: str
    generation: int


def summary(parts: Iterable[Condition], when_true: Reason) -> Condition:
    """Ready: the first False part, else the first Unknown one, else True with the reason `when_true`."""
    parts = tuple(parts)
    for status in (FALSE, UNKNOWN):
        for part in parts:
            if part.status == status:
                return Condition("Ready", part.status, part.reason, part.message, part.generation)
    return Condition("Ready", TRUE, when_true, "the board runs what its object asks", parts[0].generation)
