"""What a command tells while it works: lines and a bar for a person, one JSON object a line for a program.

Colours and bars are for terminals only, and nothing that a board says has power over one. No report ever holds a key or
a password: what is told is named field by field.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn

from boardlet_cli.table import shown

INTERRUPTED: Final = 130
AGAIN: Final = "interrupted; run the same command again, it goes on from what is done"
EVERY: Final = 0.1  # of a step, between two events for a program


class Report(Protocol):
    """Any number of plans, steps and their progress; then `done` or `failed`."""

    def plan(self, facts: Mapping[str, Any], lines: list[str]) -> None:
        """What will be done: facts for a program, lines for a person."""

    def step(self, text: str) -> None:
        """What is done now."""

    def progress(self, part: float) -> None:
        """How much of the step is done, 0 to 1."""

    def note(self, text: str) -> None:
        """Something that a person should know, or do."""

    def done(self, facts: Mapping[str, Any], text: str) -> None:
        """All was well."""

    def failed(self, message: str, code: int) -> None:
        """It went wrong; `code` will be the exit code."""


class Lines:
    """For a person."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        columns = (BarColumn(), TaskProgressColumn())
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)

    def plan(self, facts: Mapping[str, Any], lines: list[str]) -> None:
        self._console.print(shown("\n".join(lines)), markup=False)

    def step(self, text: str) -> None:
        self._end()
        self._console.print(shown(text), markup=False)

    def progress(self, part: float) -> None:
        if not self._bars.task_ids:
            self._bars.add_task("", total=1.0)
            self._bars.start()
        self._bars.update(self._bars.task_ids[0], completed=part)

    def note(self, text: str) -> None:
        self._console.print(shown(text), markup=False, style="yellow")

    def done(self, facts: Mapping[str, Any], text: str) -> None:
        self._end()
        self._console.print(shown(text), markup=False, style="green")

    def failed(self, message: str, code: int) -> None:
        self._end()  # the command itself says it, on standard error

    def _end(self) -> None:
        if self._bars.task_ids:
            self._bars.stop()
            self._bars.remove_task(self._bars.task_ids[0])


class Events:
    """For a program: {"event": "plan" | "step" | "progress" | "note" | "done" | "failed", …}."""

    def __init__(self) -> None:
        self._told = 0.0

    def plan(self, facts: Mapping[str, Any], lines: list[str]) -> None:
        self._say("plan", **facts)

    def step(self, text: str) -> None:
        self._told = 0.0
        self._say("step", text=text)

    def progress(self, part: float) -> None:
        if part >= self._told + EVERY or part >= 1.0 > self._told:
            self._told = part
            self._say("progress", part=round(part, 3))

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def done(self, facts: Mapping[str, Any], text: str) -> None:
        self._say("done", **facts)

    def failed(self, message: str, code: int) -> None:
        self._say("failed", message=message, code=code)

    def _say(self, event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}), flush=True)


@contextmanager
def for_user(as_json: bool) -> Iterator[Report]:
    """Events if the user asked for JSON, else lines; a failure or an interruption is told, and goes on its way."""
    report: Report = Events() if as_json else Lines()
    try:
        yield report
    except KeyboardInterrupt:
        report.failed(AGAIN, INTERRUPTED)
        print(f"boardlet: {AGAIN}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        report.failed(str(error), getattr(error, "code", 1))
        raise
