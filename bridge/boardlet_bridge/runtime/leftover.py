"""What the broker retains for ids without a Board object: kept for the object that may appear, never cleared by itself.

That an object is absent proves nothing, and a board may live by its mailbox.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import structlog
from boardlet_wire.names import DESIRED, SESSION
from boardlet_wire.topic import bucket

from boardlet_bridge.core.codec import MAX_PAYLOAD_BYTES

# 20,000 mailboxes at about 100 bytes are 2 MB; beyond that the board's own word still prevents a step backwards.
MAX_KEPT: Final = 20_000
# A session with the longest crash is below this. It is kept for a board that sleeps when its object is created.
MAX_SESSION_BYTES: Final = 1024
MAX_NAMED: Final = 20  # in one line of the log; the metric has their number

log = structlog.get_logger("leftover")


class Leftovers:
    """The last retained messages of ids without an object, by id."""

    def __init__(self) -> None:
        self.mailboxes: dict[str, bytes] = {}
        """From which the revision of a new object goes on."""
        self.sessions: dict[str, bytes] = {}

    def keep(self, board_id: str, letter: str, payload: bytes) -> None:
        """A retained message of an id that nobody owns; an empty one forgets."""
        kept = {DESIRED: (self.mailboxes, MAX_PAYLOAD_BYTES), SESSION: (self.sessions, MAX_SESSION_BYTES)}.get(letter)
        if kept is None:
            return
        messages, most = kept
        messages.pop(board_id, None)
        if payload and len(payload) <= most and len(messages) < MAX_KEPT:
            messages[board_id] = payload

    def drop(self, buckets: Collection[str]) -> None:
        """Forget those of buckets that another replica serves now."""
        for messages in (self.mailboxes, self.sessions):
            for board_id in [board_id for board_id in messages if bucket(board_id) in buckets]:
                del messages[board_id]

    def clear(self) -> None:
        """Forget all: the broker tells it anew."""
        self.mailboxes.clear()
        self.sessions.clear()

    def tell(self, *board_ids: str) -> None:
        """Name mailboxes in the log, if there are any."""
        if board_ids:
            log.warning(
                "mailboxes of boards without a Board object are left alone; to clear one, create a Board with its id "
                "and delete it",
                mailboxes=len(board_ids),
                boards=list(board_ids[:MAX_NAMED]),
            )
