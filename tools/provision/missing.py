"""What this machine lacks. A test that meets `Missing` is skipped by name; a command prints it and ends."""

from __future__ import annotations


class Missing(Exception):
    """A part of the machine that is needed is not there; the message names it and the next step."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}: {next_step}")
        self.what = what
        self.next_step = next_step
