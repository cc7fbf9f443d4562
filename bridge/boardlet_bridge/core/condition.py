"""Conditions as values, and the rule by which Ready follows (Knative: False beats Unknown beats True)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition without its transition time, which is the writer's to know."""

    type: str
    status: str
    reason: str
    message: str
    generation: int


def summary(parts: Iterable[Condition], when_true: str) -> Condition:
    """Ready: the first False part, else the first Unknown one, else True with the reason `when_true`."""
    parts = tuple(parts)
    for status in (FALSE, UNKNOWN):
        for part in parts:
            if part.status == status:
                return Condition("Ready", status, part.reason, part.message, part.generation)
    return Condition("Ready", TRUE, when_true, "the board runs what its object asks", parts[0].generation)
