"""What happens to a board (events) and what the bridge then does (effects): the core's whole surface to the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boardlet_bridge.core.condition import ModelFault
from boardlet_bridge.core.model import Model
from boardlet_bridge.core.notice import Notice


@dataclass(frozen=True, slots=True)
class ObjectSeen:
    """The Board object as the API server has it now (metadata, spec, status)."""

    object: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StatusSeen:
    """The object's status by another bridge's late word, before this one has shown any."""

    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelSeen:
    """The Board's model as compiled now, or why there is none."""

    model: Model | None
    reason: ModelFault = "Pending"
    message: str = ""


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """Which object, if not this one, is served under this Board's id ("" when it is this one)."""

    rival: str


@dataclass(frozen=True, slots=True)
class BrokerUp:
    """Subscribed; every retained message has been delivered."""


@dataclass(frozen=True, slots=True)
class BrokerDown:
    """The broker cannot be reached, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """A payload on one of the board's topics."""

    letter: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment that a Wake asked for has come."""


Event = ObjectSeen | StatusSeen | ModelSeen | ClaimSeen | BrokerUp | BrokerDown | Message | Tick


@dataclass(frozen=True, slots=True)
class Publish:
    """Send a payload on the board's topic of this letter."""

    letter: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """The status is to be written: at once when a condition changed, else when the budget allows."""

    urgent: bool


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """The mailbox finalizer is to be on the object, or off it."""

    present: bool


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a Tick at this time (seconds of the caller's monotonic clock)."""

    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was dropped: counted under `cause`, logged with the detail."""

    cause: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DroppedByBoard:
    """The board says that it has dropped so many messages more, for this cause."""

    cause: str
    count: int
    in_same_boot: bool
    """Since its last word; else since it booted, when it may have been flashed with another key."""


Effect = Publish | WriteStatus | SetFinalizer | Wake | Refused | DroppedByBoard | Notice
