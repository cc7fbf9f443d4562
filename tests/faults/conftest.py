"""The fault suite: how many faults a run injects, fleets, and the table that says how every case ended.

`make test` runs every case with few faults, `make faults` (BOARDLET_FAULTS=full) with as many as docs/faults.md tells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bench import page
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boards_in_use import Fleet
from controlplane import ControlPlane
from judge import FULL, Case, MakeFleet, Row

ROOT = Path(__file__).parents[2]
BUILD, PAGE = ROOT / "build", ROOT / "docs/faults.md"
ALL = "tests/faults"  # what `make faults` names
_rows = pytest.StashKey[list[Row]]()


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """The row of this test in the table."""
    row = Row(request.node.nodeid.rsplit("::", 1)[1].removeprefix("test_").replace("_", " "))
    request.config.stash.setdefault(_rows, []).append(row)
    began = time.monotonic()
    yield Case(row)
    row.seconds = round(time.monotonic() - began, 1)


@pytest.fixture
def make_fleet(cluster: Cluster, plane: ControlPlane, make_site: Callable[..., Site]) -> MakeFleet:
    """Makes a fleet with a site of its own; returns when every board is as its object says."""

    def make(
        count: int,
        seed: int = 1,
        *,
        prepare: Callable[[Site], None] | None = None,
        config: Mapping[str, object] | None = None,
        within: Sequence[str] = (),
        **settings: Any,
    ) -> Fleet:
        own = {"status_interval_s": 1, "mint_interval_s": 0.5, "log_level": "info", **settings}
        fleet = Fleet(make_site(own, prepare), cluster, plane.kubeconfig(), count, seed, config, within)
        assert not (found := fleet.settled()), "\n".join(found)
        return fleet

    return make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the cases out that only `make faults` runs: each has a quicker relative in `make test`."""
    if FULL:
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Print the table and write build/faults.json; the page too, where all that it tells was run, and held."""
    rows = config.stash.get(_rows, [])
    if not rows:
        return
    terminalreporter.section("faults")
    titles = ("case", "faults injected", "boards", "edits", "lost", "differences", "s")
    cells = [titles, *(tuple(str(value) for value in asdict(row).values()) for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(titles))]
    for line in cells:
        terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    BUILD.mkdir(exist_ok=True)
    report = {"full": FULL, "cases": [asdict(row) for row in rows]}
    (BUILD / "faults.json").write_text(json.dumps(report, indent=1) + "\n")
    if FULL and exitstatus == 0 and config.args == [ALL]:
        edits, lost, took_s = (sum(getattr(row, what) for row in rows) for what in ("edits", "lost", "seconds"))
        said = f"{len(rows)} cases in {took_s / 60:.0f} minutes; {edits:,} edits, {lost} lost."
        page.write("faults", f"{said}\n\n{page.table(titles, cells[1:])}", PAGE)
