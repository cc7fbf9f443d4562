"""Who is to be let in by the broker, and with which password: the whole set, for whoever carries it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from boardlet_bridge.mqtt.credential import CLAIM_USER


class Logins:
    """Of boards, by the number of their key; `password` gives the password that follows from id and number.

    With a password for the site's claim a board that has only that may ask to be enrolled.
    """

    def __init__(self, password: Callable[[str, int], str], claim_password: str = "") -> None:
        self._password, self._claim_password = password, claim_password
        self._numbers: dict[str, int] = {}
        self.changed = asyncio.Event()
        """Set when somebody should look; cleared by whoever does."""

    def __len__(self) -> int:
        """How many boards are let in."""
        return len(self._numbers)

    @property
    def claimable(self) -> bool:
        return bool(self._claim_password)

    def admit(self, board_id: str, number: int) -> None:
        """Let the board in with the password of this key number; with 0 do not."""
        if number:
            self._numbers[board_id] = number
        elif self._numbers.pop(board_id, None) is None:
            return
        self.changed.set()

    def passwords(self) -> dict[str, str]:
        """By user; may be called in a thread, as a fleet's take seconds."""
        numbers = self._numbers.copy()  # in one piece, so that the loop may go on
        made = {board_id: self._password(board_id, number) for board_id, number in numbers.items()}
        if self._claim_password:
            made[CLAIM_USER] = self._claim_password
        return made
