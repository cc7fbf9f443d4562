"""`boardlet flash --from FILE`: many boards at once, each flashed by a `boardlet flash --json` of its own.

One that hangs, crashes or is unplugged disturbs no other. On a terminal a table lives; elsewhere each board's steps are
lines with its name before them; with --json its events have its name in them. With --claim boards have no names yet:
their ports stand for them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from boardlet_cli.order import FlashFailed
from boardlet_cli.report import AGAIN, INTERRUPTED
from boardlet_cli.table import shown

COLUMNS: Final = {"port": None, "name": "--name", "model": "--model", "board_id": "--board-id", "image": "--image"}
OF_CLAIMS: Final = ("port", "image")  # the others are said when a board is approved
JOBS: Final = 8  # esptool and mpremote take a tenth of a processor each; USB hubs are the limit
END_S: Final = 20.0  # for an interrupted flash to end
_REFRESHES: Final = 5  # a second


@dataclass(slots=True)
class Row:
    """One board of the file, and how far it is."""

    wanted: dict[str, str]
    state: str = "waiting"
    part: float = 0.0
    code: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What tells it from the others."""
        return self.wanted.get("name") or self.wanted["port"]


def load(path: Path, claims: bool = False) -> list[Row]:
    """The boards of a CSV (with a header) or YAML file; raises FlashFailed with the line that is wrong.

    With `claims` they are to ask to come in, and are listed by their ports alone.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # a spreadsheet begins it with a byte order mark
        raw = yaml.safe_load(text) if path.suffix.lower() in (".yaml", ".yml") else _table_of(text)
    except UnicodeDecodeError as error:
        raise FlashFailed(f"{path} is not UTF-8: save it as CSV UTF-8") from error
    except (OSError, yaml.YAMLError, csv.Error) as error:
        raise FlashFailed(f"cannot read {path}: {error}") from error
    if not isinstance(raw, list) or not raw:
        raise FlashFailed(f"{path} lists no boards: a CSV with the columns port,name or a YAML list of such mappings")
    rows = [Row(_wanted(path, number, entry, claims)) for number, entry in enumerate(raw, 1)]
    for column in ("port", "name", "board_id"):
        given = [row.wanted[column] for row in rows if column in row.wanted]
        same = [os.path.realpath(value) if column == "port" and "://" not in value else value for value in given]
        twice = sorted(value for value, is_ in zip(given, same, strict=True) if same.count(is_) > 1)
        if twice:
            other = f" (as {twice[1]} too)" if twice[1] != twice[0] else ""
            raise FlashFailed(f"{path} has the {column} {twice[0]} twice{other}")
    return rows


def run(rows: Sequence[Row], options: Sequence[str], jobs: int, as_json: bool) -> int:
    """Flash them all, `jobs` at a time, with these options for each; the exit code: 0 only if all went well."""
    fleet = _Fleet(rows, options, as_json)
    # A boot volume says nothing of the port that will follow it, so that no other board may come or go meanwhile.
    volumes = [row for row in rows if Path(row.wanted["port"]).is_dir()]
    try:
        with fleet.shown():
            fleet.flash(volumes, 1)
            fleet.flash([row for row in rows if row not in volumes], jobs)
    except KeyboardInterrupt:
        print(f"boardlet: {AGAIN}", file=sys.stderr)
        return INTERRUPTED
    others = [row.title for row in rows if row.code != 0]
    if not as_json:
        again = f"; run the same command again for the others: {', '.join(others)}" if others else ""
        end = "can be flashed" if fleet.dry else "ask to come in" if fleet.claims else "are Ready"
        print(f"{len(rows) - len(others)} of {len(rows)} boards {end}{again}")
    return 1 if others else 0


class _Fleet:
    def __init__(self, rows: Sequence[Row], options: Sequence[str], as_json: bool) -> None:
        self._rows, self._options, self._as_json = rows, options, as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal and not as_json
        self.dry = "--dry-run" in options
        self.claims = "--claim" in options
        self._lock = threading.Lock()
        self._ending = False
        self._running: list[subprocess.Popen[str]] = []

    def shown(self) -> AbstractContextManager[object]:
        if not self._live:
            return nullcontext()
        return Live(console=self._console, refresh_per_second=_REFRESHES, get_renderable=lambda: _table(self._rows))

    def flash(self, rows: Sequence[Row], jobs: int) -> None:
        if not rows:
            return
        with ThreadPoolExecutor(min(jobs, len(rows))) as pool:
            futures = [pool.submit(self._one, row) for row in rows]
            try:
                for future in futures:
                    future.result()
            except KeyboardInterrupt:
                self._end()
                raise

    def _one(self, row: Row) -> None:
        with self._lock:
            if self._ending:
                return
            program = subprocess.Popen(
                _command(row, self._options),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._running.append(program)
        with program:
            assert program.stdout is not None
            assert program.stderr is not None
            for line in program.stdout:
                self._hear(row, _event(line))
            said = program.stderr.read().strip()
            row.code = program.wait()
        if row.code and row.state != "failed":  # it ended before it could report
            self._hear(row, {"event": "failed", "message": said[-500:], "code": row.code})

    def _end(self) -> None:
        with self._lock:
            self._ending = True
            for program in self._running:
                program.send_signal(signal.SIGINT)
        for program in self._running:
            try:
                program.wait(END_S)
            except subprocess.TimeoutExpired:
                program.kill()

    def _hear(self, row: Row, event: dict[str, Any]) -> None:
        with self._lock:
            done = f"it asks, with the fingerprint {event.get('fingerprint')}" if self.claims else "Ready"
            text = _take(row, event, "it can be flashed; nothing was changed" if self.dry else done)
            if self._as_json:
                print(json.dumps({"name": row.title, **event}), flush=True)
            elif not self._live and text:
                print(f"{row.title}: {shown(text)}", flush=True)


def _table_of(text: str) -> list[dict[Any, Any]]:
    # Spreadsheets divide columns as their country does, and leave empty rows at the end.
    head = text.partition("\n")[0]
    divider = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=divider, skipinitialspace=True, strict=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    return [row for row in reader if any(row.values())]


def _wanted(path: Path, number: int, entry: Any, claims: bool) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise FlashFailed(f"{path}, board {number}: must be a mapping with port and name")
    if None in entry:
        raise FlashFailed(f"{path}, board {number}: has more columns than the first line names")
    unknown = [str(key) for key in entry if key not in COLUMNS]
    if unknown:
        raise FlashFailed(f"{path}, board {number}: {unknown[0]!r} is not known; there is {', '.join(COLUMNS)}")
    for key, value in entry.items():
        if value is not None and not isinstance(value, str):  # 01234567 is a number to YAML, and another one
            raise FlashFailed(f"{path}, board {number}: {key} is no text but {value!r}: put it in quotes")
        if value and (not value.isprintable() or value.strip().startswith("-")):
            raise FlashFailed(f"{path}, board {number}: {key} cannot be {value!r}")
    wanted = {key: value.strip() for key, value in entry.items() if value and value.strip()}
    for needed in ("port",) if claims else ("port", "name"):
        if not wanted.get(needed):
            raise FlashFailed(f"{path}, board {number}: {needed} is missing")
    if claims and (said := next((key for key in wanted if key not in OF_CLAIMS), "")):
        raise FlashFailed(f"{path}, board {number}: {said} is said when the board is approved; leave it out")
    return wanted


def _command(row: Row, options: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "boardlet_cli.main", "flash", row.wanted["port"], "--json", *options]
    for column, option in COLUMNS.items():
        if option and column in row.wanted:
            command += [option, row.wanted[column]]
    return command


def _take(row: Row, event: dict[str, Any], done: str) -> str:
    # What a person is to read of the event, if anything.
    row.events.append(event)
    kind = event["event"]
    text = str(event.get("text", ""))
    if kind == "progress":
        row.part = event["part"]
    elif kind == "failed":
        row.state, text = "failed", f"FAILED: {event['message']}"
    elif kind == "done":
        row.state = text = done
    elif text:
        row.state, row.part = text, 0.0
    return text


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "event" in event else {"event": "note", "text": line.strip()}


def _table(rows: Sequence[Row]) -> Table:
    table = Table("board", "port", "", "state")
    for row in rows:
        colour = {None: "", 0: "green"}.get(row.code, "red")
        last = next((e["message"] for e in reversed(row.events) if e["event"] == "failed"), row.state)
        cells = (row.title, row.wanted["port"], f"{row.part:.0%}" if row.part else "", last)
        # Brackets in what a board or esptool says are no markup.
        table.add_row(*(Text(shown(cell)) for cell in cells), style=colour)
    return table
