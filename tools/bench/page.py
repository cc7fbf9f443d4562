"""docs/benchmarks.md: the tables between its markers, and the chart of what the goals are reached to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from boardlet_cli.cluster import ROOT

PAGE: Final = ROOT / "docs/benchmarks.md"
CHART: Final = ROOT / "docs/benchmarks.svg"
BAR_PX, ROW_PX, LABEL_PX = 300, 26, 330

TIMED: Final = {
    "floor": "floor: spec PATCH until a watch shows it + one MQTT QoS 1 round trip + a whole status by server-side "
    "apply until a watch shows it",
    "edit_to_pin": "edit-to-pin: from the PATCH until the pin has changed",
    "edit_to_status": "edit-to-status: from the PATCH until a watch shows the board's own confirmation",
}
HEAP: Final = (
    "heap of a 32-bit interpreter with the frozen agent, Ready, three properties; interpreter, simulated `machine` "
    "(about 3 KB) and the measuring app included"
)

Goal = tuple[str, float, float, str]  # what, figure, goal, unit; less is better


def write(name: str, table: str, page: Path = PAGE) -> None:
    """Put a table between the page's markers of this name; raises ValueError where the page has none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text()
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{page} has no markers {begin} … {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text))


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(list(head)), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bench_table(figures: dict[str, Any]) -> str:
    """One row a figure of `make bench`."""
    latency = figures["latency_ms"]
    rows: list[tuple[str, str]] = []
    for name, words in TIMED.items():
        rows.append((words, f"{latency[name]['p50']:.1f} / {latency[name]['p99']:.1f} ms"))
    ratios = [latency["edit_to_status"][p] / latency["floor"][p] for p in ("p50", "p99")]
    rows.append(("**edit-to-status over floor**", " / ".join(f"**{ratio:.2f}**" for ratio in ratios)))
    size = figures["bytes"]
    payloads = f"{size['desired_payload']} B + {size['reported_payload']} B"
    rows.append(("one edit of a boolean on the wire: payloads of desired and reported", payloads))
    rows.append(("the same as two MQTT packets", f"{size['both_packets']} B"))
    rows.append(("agent as .mpy, with what it loads on demand", f"{figures['agent']['mpy_bytes']} B"))
    heap = figures["agent"]["heap_bytes"]
    rows.append((HEAP, f"{heap} B" if heap else figures["agent"]["heap_missing"]))
    for name, value in figures["bridge"].items():
        count = int(name.removeprefix("boards_"))
        title = f"bridge with {count:,} Board{'s' * (count > 1)}: ready after, memory"
        rows.append((title, f"{value['ready_s']} s, {value['rss_mb']} MB"))
    about = f"{figures['machine']}; {figures['edits']} edits, one after the other"
    return f"{about}\n\n" + table(("figure", "p50 / p99, or value"), rows)


def fleet_table(figures: dict[str, Any]) -> str:
    """The fleet's figures: one row each, phase by phase."""
    rows = []
    for phase, found in figures["phases"].items():
        for name, value in found.items():
            if name == "behind":
                value = f"at most {max(value)} in {len(value)} looks, one a second"
            words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            rows.append((phase, name.replace("_", " "), words))
    writes = f"{figures['budget_writes_per_s']:g} writes/s, {figures['storm_writes_per_s']:g} in roll-out and storms"
    about = f"{figures['boards']:,} boards; {figures['machine']}; {writes}"
    return f"{about}\n\n" + table(("phase", "figure", "value"), rows)


def link_rows(figures: dict[str, Any]) -> list[tuple[tuple[str, ...], list[tuple[object, ...]]]]:
    """Heads and rows of two tables: the measured parts, and the days that are computed of them."""
    parts = [(name, f"{part['out']:,}", f"{part['back']:,}") for name, part in figures["parts"].items()]
    bad = figures["bad"]["of_an_edit"]
    parts.append(("the same edit at 64 kbit/s, 1 s each way, 20 % loss", f"{bad['out']:,}", f"{bad['back']:,}"))
    days: list[tuple[object, ...]] = []
    for name, day in figures["days"].items():
        if isinstance(day, dict):
            settings, boards = name.split(", ")
            both = (f"{day['board'][way] / 1000:,.0f}" for way in ("out", "back"))
            days.append((settings, f"{int(boards):,}", *both, f"{day['mean_bits_per_s'] / 1000:,.1f}"))
    head = ("settings", "boards of the site", "KB a board and day, out", "and back", "kbit/s while up, the fuller way")
    return [(("bytes by the link", "to the cluster", "from it"), list(parts)), (head, days)]


def link_table(figures: dict[str, Any]) -> str:
    """The link's figures: measured parts, and a day."""
    measured, computed = (table(*rows) for rows in link_rows(figures))
    bad, days = figures["bad"], figures["days"]
    about = f"{figures['boards']} boards; {figures['machine']}. Measured:"
    took = f"By the bad link all {figures['boards']} edits at once were back after {bad['all_back_s']} s."
    said = f"Computed from these, for {days['up_hours']:g} hours up a day and, of each board, {days['traffic']}:"
    return f"{about}\n\n{measured}\n\n{took} {said}\n\n{computed}"


def goals(figures: dict[str, Any]) -> list[Goal]:
    """The fleet's figures that have a goal."""
    phases = figures["phases"]
    found: list[Goal] = [("bridge's memory after the roll-out", phases["roll-out"]["bridge_rss_mb"], 350, "MB")]
    found.append(("bridge restart to all truthful", phases["bridge restart"]["all_truthful_s"], 15, "s"))
    if "steady" in phases:
        steady = phases["steady"]
        found.append(("edit-to-status p99 under load", steady["edit_to_status_ms"]["p99"], 250, "ms"))
        found.append(("writes a second under load", steady["bridge_writes_per_s"], figures["budget_writes_per_s"], ""))
        found.append(("one property's change on the wire", steady["wire_bytes"]["change_of_one"], 42, "B"))
        found.append(("a desired of five on the wire", steady["wire_bytes"]["desired_of_five"], 90, "B"))
    if "flood" in phases:
        found.append(("bridge's CPU for one report", phases["flood"]["bridge_cpu_us_per_report"], 100, "µs"))
    return found


def chart(rows: list[Goal]) -> str:
    """Bars: each figure as a share of its goal, which is the line; an SVG that reads on light and dark pages."""
    width, height = LABEL_PX + BAR_PX + 190, ROW_PX * len(rows) + 16
    line = LABEL_PX + BAR_PX * 2 // 3
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"']
    parts[0] += ' font-size="13" fill="#888">'
    for n, (what, figure, goal, unit) in enumerate(rows):
        y, share = 8 + ROW_PX * n, min(1.5, figure / goal)
        color = "#3a7d44" if figure <= goal else "#b3541e"
        length = round(share * (line - LABEL_PX))
        parts.append(f'<text x="{LABEL_PX - 8}" y="{y + 16}" text-anchor="end">{what}</text>')
        parts.append(f'<rect x="{LABEL_PX}" y="{y + 3}" width="{length}" height="{ROW_PX - 8}" fill="{color}"/>')
        said = f"{figure:g} of {goal:g} {unit}".strip()
        parts.append(f'<text x="{LABEL_PX + BAR_PX + 8}" y="{y + 16}">{said}</text>')
    parts.append(f'<line x1="{line}" y1="4" x2="{line}" y2="{height - 4}" stroke="#888" stroke-dasharray="4"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
