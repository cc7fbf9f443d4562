"""Chips that are to become boards: which there are, where they are plugged in, and how an image gets onto them.

Nothing here knows of clusters or of Boardlet's agent: it ends where MicroPython answers at a port.
"""

from __future__ import annotations

from typing import Final

NOT_FOUND: Final = 4
BAD_IMAGE: Final = 5
NOT_WRITTEN: Final = 6
OWN_STEP: Final = 8


class ChipError(Exception):
    """It could not be done; the message says the cause and the next step, `code` is to be the exit code."""

    def __init__(self, message: str, code: int = NOT_WRITTEN) -> None:
        super().__init__(message)
        self.code = code
