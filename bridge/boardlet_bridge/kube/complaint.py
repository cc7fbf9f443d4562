"""What does not work with the API server, said once a cause and once when it works again, however often it is tried."""

from __future__ import annotations

import time
from typing import Final

import structlog

AGAIN_S: Final = 60.0  # what works for some objects and not for others alternates: it is said again after this time


class Complaint:
    """One thing that can fail in one way or another; `why` is the cause while it fails, else ""."""

    def __init__(self, logger: str, failing: str, well: str) -> None:
        self._log = structlog.get_logger(logger)
        self._failing, self._well = failing, well
        self._said, self._said_at = "", float("-inf")
        self.why = ""

    def failed(self, why: str, **about: str) -> None:
        """It has failed; `about` names the first object that it failed for."""
        self.why = why
        cause, now = why.partition(":")[0], time.monotonic()  # the status code; what follows names the object
        if cause != self._said or now >= self._said_at + AGAIN_S:
            self._said, self._said_at = cause, now
            self._log.warning(self._failing, why=why, **about)

    def worked(self) -> None:
        """It has worked."""
        if self.why:
            self.why = ""
            self._log.info(self._well)
