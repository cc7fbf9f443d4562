"""docs/benchmarks.md is written by the benchmarks: between its markers, and nowhere else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench import link, page
from bench.link import Bytes

FLEET = {
    "machine": "m",
    "boards": 2,
    "budget_writes_per_s": 50.0,
    "storm_writes_per_s": 200,
    "phases": {
        "roll-out": {"bridge_rss_mb": 400.0},
        "bridge restart": {"all_truthful_s": 7.5},
        "flood": {"bridge_cpu_us_per_report": 50, "behind": [3, 1], "cpu_s": {"bridge": 1.0}},
    },
}


def test_the_page_has_its_markers(tmp_path: Path) -> None:
    """Every table finds its place on the real page, and leaves the rest of it as it was."""
    copy = tmp_path / "page.md"
    before = page.PAGE.read_text()
    copy.write_text(before)
    for name in ("bench", "fleet", "link"):
        page.write(name, "| written |", copy)
    after = copy.read_text()
    assert after.count("| written |") == 3
    assert after.partition("<!--")[0] == before.partition("<!--")[0]
    assert after.rpartition("-->")[2] == before.rpartition("-->")[2]


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    """What has no place for a table is not written."""
    copy = tmp_path / "page.md"
    copy.write_text("# nothing\n")
    with pytest.raises(ValueError, match="no markers"):
        page.write("bench", "x", copy)
    assert copy.read_text() == "# nothing\n"


def test_the_chart_shows_each_figure_against_its_goal() -> None:
    """One bar a figure that has a goal; one that misses its goal has another colour."""
    goals = page.goals(FLEET)
    root = ET.fromstring(page.chart(goals))
    bars = [e for e in root if e.tag.endswith("rect")]
    assert len(bars) == len(goals) == 3
    assert bars[0].get("fill") != bars[1].get("fill") == bars[2].get("fill")


def test_a_day_by_the_link_is_the_sum_of_its_parts() -> None:
    """What is measured per board counts once a board, what is measured per site once; both tables show it."""
    names = ("start, with one Board", "listing, of one Board", "idle for an hour, without a Lease")
    names += ("status write, by a new connection", "status write, by an open one", "edit, status write included")
    names += ("link back after an outage, with one Board", "renewal of the Lease")
    parts = {name: Bytes(1000, 2000) for name in names}
    days = link.days(parts, 20)
    writes, listings, edits = 8 * 3600 / 900 + 2, 1, 2
    hours, renewals, backs = 8, 8 * 3600 / 100, 1
    expected = writes + listings + edits + (hours + renewals + backs) / 20
    assert days["thin, 20"]["board"] == {"out": round(1000 * expected), "back": round(2000 * expected)}
    bad = {"all_back_s": 9.5, "of_an_edit": {"out": 10, "back": 20}, "connections": 3}
    told = {name: part.figures for name, part in parts.items()}
    table = page.link_table({"machine": "m", "boards": 20, "parts": told, "bad": bad, "days": days})
    assert "| renewal of the Lease | 1,000 | 2,000 |" in table
    assert "| thin | 1,000 | 37 | 75 |" in table


def test_the_table_has_every_figure() -> None:
    """Each figure of each phase is a row; a list is told by its worst."""
    rows = page.fleet_table(FLEET).splitlines()
    assert "| flood | behind | at most 3 in 2 looks, one a second |" in rows
    assert "| flood | cpu s | bridge 1.0 |" in rows
