"""docs/threat-model.md claims nothing without a test: each line names one that there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text()
NAMED = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def defined(path: Path) -> set[str]:
    """The tests of a file, also those in its classes."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_named_test_exists() -> None:
    """A test that is renamed or removed takes its claim with it."""
    named = NAMED.findall(PAGE)
    assert len(named) > 30
    assert [name for path, name in named if name not in defined(ROOT / path)] == []


def test_every_claim_names_a_test() -> None:
    """Each line of a table of attacks ends in a test, and each attacker has a line of what does not hold."""
    for section in PAGE.partition("\n## Tried by hand")[0].split("\n## ")[2:]:
        rows = [line for line in section.splitlines() if line.startswith("|")][2:]
        assert rows
        assert [row for row in rows if not NAMED.search(row.rstrip("| ").rpartition("|")[2])] == []
        assert "Does not hold" in section, section.splitlines()[0]
