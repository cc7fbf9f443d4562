"""Whether a Board is Ready by what its board has said since it was reset, and not by what it said before.

A status stays until something contradicts it, and where a connection just ends, or a board sleeps, nothing does for a
while: only another session than the one of before is the word of a board that has come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

OF_BEFORE: Final = "what it says is of before the reset: the board has begun no session since"
_UNSEEN: Final = {"status": "Unknown", "reason": "Pending", "message": "no bridge sees it"}


def session(board: Mapping[str, Any]) -> str:
    """Which session of its board a Board's status is of, "" for none yet."""
    return str(((board.get("status") or {}).get("session") or {}).get("epoch") or "")


def readiness(board: Mapping[str, Any]) -> Mapping[str, Any]:
    """The condition Ready of a Board."""
    conditions = (board.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "Ready"), _UNSEEN)


def is_ready_since(board: Mapping[str, Any], before: str) -> bool:
    """Whether it is Ready in another session than that of `before`."""
    return readiness(board)["status"] == "True" and (not before or session(board) != before)
