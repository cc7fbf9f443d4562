"""What is wrong in the folder, for whoever edits it: said once in the log, and for as long as it lasts in a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog
import yaml

from boardlet_bridge.folder.file import replace

NAME: Final = "problems"
MAX_PROBLEMS: Final = 1000  # in the file; a folder of something else must not fill the disk
MAX_CAUSE: Final = 500
HEAD: Final = "# What the bridge does not take in this folder. All else works; this file goes when all is well.\n"

log = structlog.get_logger("folder")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is not taken: where (`line` from 1, 0 for the whole file), why, and what to do."""

    file: str
    line: int
    object: str
    cause: str
    next: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        about = f" ({self.object})" if self.object else ""
        return f"{where}{about}: {self.cause}; {self.next}"


class Problems:
    """Keeps the file `problems` of the status folder in step with what is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.now: tuple[Problem, ...] | None = None
        """What was last written; None before the first time, as the file may be another bridge's."""

    def differ(self, problems: Iterable[Problem]) -> tuple[Problem, ...] | None:
        """The problems in order if they are not those that were last written, else None; tells the log."""
        present = tuple(sorted(set(problems)))
        if present == self.now:
            return None
        before = set(self.now or ())
        for problem in [p for p in present if p not in before][:MAX_PROBLEMS]:
            log.warning("not taken", **asdict(problem))
        if before and not present:
            log.info("everything in the folder is taken again")
        return present

    def write(self, present: tuple[Problem, ...]) -> None:
        """Write them, or remove the file where there are none; raises OSError."""
        if present:
            replace(self._path, HEAD + text(present[:MAX_PROBLEMS]))
        else:
            self._path.unlink(missing_ok=True)
        self.now = present


def text(problems: Iterable[Problem]) -> str:
    """Problems as YAML."""
    rows = [{key: value for key, value in asdict(p).items() if value} for p in problems]
    return yaml.safe_dump({"problems": rows}, sort_keys=False, allow_unicode=True, width=120)


def cut(cause: str) -> str:
    """A cause on one line and of a bearable length."""
    line = " ".join(cause.split())
    return line if len(line) <= MAX_CAUSE else line[: MAX_CAUSE - 1] + "…"
