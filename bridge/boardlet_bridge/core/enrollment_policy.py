"""A policy that approves enrolments without a person: which hardware, which model, how many, until when.

Read from a YAML file, anew for each decision. Whatever is wrong with it approves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from boardlet_bridge.core.enrollment import Wanted, contested, reason_of

_NAMES: Final = {"model", "namePrefix", "hardware", "quota", "until"}
_PREFIX: Final = re.compile("[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")
_HARDWARE: Final = re.compile("[0-9a-f]{2,32}")
MAX_HARDWARE: Final = 100_000


class PolicyInvalid(ValueError):
    """The policy's file cannot be used; the message says where."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom to let in: listed hardware alone, at most `quota` by this policy, until a moment."""

    model: str
    name_prefix: str
    hardware: frozenset[str]
    quota: int
    until: datetime

    @classmethod
    def of(cls, lines: object) -> Policy:
        """From the file's content; raises PolicyInvalid."""
        if not isinstance(lines, dict) or set(lines) - _NAMES:
            raise PolicyInvalid(f"must be lines of {', '.join(sorted(_NAMES))}")
        model, prefix = lines.get("model"), lines.get("namePrefix", lines.get("model"))
        if not isinstance(model, str) or not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise PolicyInvalid("model and namePrefix must be names of Kubernetes objects")
        hardware = lines.get("hardware")
        if not isinstance(hardware, list) or len(hardware) > MAX_HARDWARE:
            raise PolicyInvalid(f"hardware must be a list of at most {MAX_HARDWARE}")
        listed = frozenset(str(one).lower().replace(":", "") for one in hardware)
        if wrong := [one for one in listed if not _HARDWARE.fullmatch(one)]:
            raise PolicyInvalid(f"hardware {wrong[0]!r:.40} must be 2 to 32 hex digits, quoted, colons between or not")
        quota = lines.get("quota")
        if type(quota) is not int or quota < 0:
            raise PolicyInvalid("quota must be a whole number from 0: how many this policy may approve in all")
        return cls(model, prefix, listed, quota, _moment(lines.get("until")))

    def approves(self, obj: Mapping[str, Any], others: Sequence[Mapping[str, Any]], now: datetime) -> Wanted | None:
        """What this policy wants of an Enrollment; None where a person has to look at it."""
        hardware = obj["spec"]["request"]["hardware"]
        if hardware not in self.hardware or now >= self.until or contested(obj, others):
            return None
        # A board that was granted something stays so whatever the quota is now; it has been counted.
        if (obj.get("status") or {}).get("approvedBy") != "Policy":
            spent = sum((other.get("status") or {}).get("approvedBy") == "Policy" for other in others)
            if spent >= self.quota or reason_of(obj) == "Enrolled":
                return None
        return Wanted(f"{self.name_prefix}-{hardware}", self.model, "", "Policy")


def _moment(text: object) -> datetime:
    # YAML reads an unquoted time as one, without a zone where it has none.
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    except ValueError as error:
        raise PolicyInvalid("until must be a time as 2026-12-01T18:00:00Z") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
