"""Tells a waiting person what is being made, how long that usually takes, and that it is still alive.

On a terminal: one line with a spinner and the elapsed time, by rich. Elsewhere (CI, a pipe): a line at the start, a
heartbeat with the last note every half a minute, a line at the end. `Progress` is all that builders know of it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

HEARTBEAT_S = 30.0  # short enough that no CI system takes a quiet build for a dead one


class Progress(Protocol):
    """One piece of work at a time: begin, any number of notes, end."""

    def begin(self, what: str, usual_s: float) -> None:
        """Say that `what` begins and usually takes `usual_s` seconds (0: not worth saying)."""

    def note(self, text: str) -> None:
        """Say which part of the work is being done now; may be called as often as it changes."""

    def end(self, ok: bool) -> None:
        """Say that the work is done, or that it failed; the failure itself is told by its exception."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, what: str, usual_s: float) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self, ok: bool) -> None: ...


class Plain:
    """Progress as lines of text, with a heartbeat."""

    def __init__(self, stream: TextIO | None = None, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._stream = stream or sys.stderr
        self._heartbeat_s = heartbeat_s
        self._what, self._started, self._note = "", 0.0, ""
        self._ended = threading.Event()
        self._beat: threading.Thread | None = None

    def begin(self, what: str, usual_s: float) -> None:
        self._what, self._started, self._note = what, time.monotonic(), ""
        self._say(f"{what} …{usually(usual_s)}")
        self._ended.clear()
        self._beat = threading.Thread(target=self._heartbeat, name="progress", daemon=True)
        self._beat.start()

    def note(self, text: str) -> None:
        self._note = text

    def end(self, ok: bool) -> None:
        self._ended.set()
        if self._beat is not None:
            self._beat.join()
        self._say(f"{self._what}: {'done' if ok else 'failed'} after {self._elapsed()}")

    def _heartbeat(self) -> None:
        while not self._ended.wait(self._heartbeat_s):
            self._say(f"  … {self._elapsed()}: {self._note or 'still at it'}")

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._started)

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Terminal:
    """Progress as one living line on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: RichProgress | None = None
        self._what, self._usually, self._started = "", "", 0.0

    def begin(self, what: str, usual_s: float) -> None:
        self._what, self._usually, self._started = what, usually(usual_s), time.monotonic()
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._bar.add_task(f"{what}{self._usually}", total=None)
        self._bar.start()

    def note(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=f"{self._what}: {text}{self._usually}")

    def end(self, ok: bool) -> None:
        if self._bar is not None:
            self._bar.stop()
        took = duration(time.monotonic() - self._started)
        self._console.print(f"{'[green]✓' if ok else '[red]✗'}[/] {self._what} ({took})")


def for_stream(stream: TextIO | None = None) -> Progress:
    """The progress that fits `stream` (standard error by default): a living line on a terminal, else plain lines."""
    stream = stream or sys.stderr
    console = Console(file=stream)
    return Terminal(console) if console.is_terminal and not console.is_dumb_terminal else Plain(stream)


@contextmanager
def step(progress: Progress, what: str, usual_s: float = 0.0) -> Iterator[None]:
    """Frame a piece of work with `begin` and `end`, whatever way it ends."""
    progress.begin(what, usual_s)
    ok = False
    try:
        yield
        ok = True
    finally:
        progress.end(ok)


def usually(seconds: float) -> str:
    """How long something takes, as a bracket to append; empty where nobody knows."""
    return f" (usually about {duration(seconds)})" if seconds else ""


def duration(seconds: float) -> str:
    """A length of time as a person says it, from seconds."""
    whole = round(seconds)
    if whole < 1:
        return "less than a second"
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
