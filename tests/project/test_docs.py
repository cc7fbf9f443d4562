"""The documentation says what the code does: reasons both ways, links, and the README's commands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from boardlet_bridge.core import reason
from boardlet_bridge.core.state import Link

ROOT = Path(__file__).parents[2]
CORE = ROOT / "bridge/boardlet_bridge/core"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WORD = re.compile(r"[A-Z][A-Za-z]+")


def code_reasons() -> set[str]:
    """Every reason that the code can give: its tables, and the literals where a condition or a refusal is made."""
    found = {link.value for link in Link} | set(reason.SUSPICIONS)
    found |= {name for name, _ in reason.PROPERTY_REASONS.values()} | {name for name, _ in reason.REFUSALS.values()}
    for path in [*CORE.glob("*.py"), *(ROOT / "bridge/boardlet_bridge/runtime").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found |= set(_of_call(node))
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and path.name == "verdict.py":
                found |= set(_words(node.value.elts[:1]))
    return found


def _of_call(node: ast.Call) -> list[str]:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if name == "get" and len(node.args) == 2 and isinstance(node.args[1], ast.Tuple):
        return _words(node.args[1].elts[:1])  # the words for a code that is in no table
    position = {"_condition": 3, "Condition": 2, "ModelSeen": 1, "ValueRefused": 0}.get(name)
    return [] if position is None else _words(node.args[position : position + 1])


def _words(nodes: list[ast.expr]) -> list[str]:
    return [
        n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and WORD.fullmatch(n.value)
    ]


def documented_reasons() -> set[str]:
    text = (ROOT / "docs/status.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    conditions = {row[2] for row in rows if len(row) == 5 and WORD.fullmatch(row[2])}
    properties = {row[0] for row in rows if len(row) == 3 and WORD.fullmatch(row[0])}
    return (conditions | properties) - {"reason"}


def test_every_reason_is_documented_and_no_other() -> None:
    """docs/status.md has exactly the reasons that the code can give (Pending and Compiled are defaults beside them)."""
    assert documented_reasons() - {"Pending", "Compiled"} == code_reasons() - {"Pending", "Compiled"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    """Every relative link of a page leads to a file."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_names_commands_that_exist() -> None:
    """`make X` of the README and docs are targets, `boardlet X` are commands."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^def (\w+)\(", (ROOT / "tools/boardlet_cli/main.py").read_text(), re.MULTILINE))
    for page in PAGES:
        blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL))
        assert set(re.findall(r"^make ([a-z]+)", blocks, re.MULTILINE)) <= targets, page.name
        assert set(re.findall(r"^boardlet ([a-z]+)", blocks, re.MULTILINE)) <= commands, page.name


def test_the_readme_comes_to_the_point() -> None:
    """The first command of the README stands within its first twelve lines."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert next(n for n, line in enumerate(lines) if line.startswith("make demo")) < 13


def test_every_setting_is_documented() -> None:
    """Every setting of the bridge explains itself in --help."""
    from boardlet_bridge.runtime.settings import Settings

    assert all(field.description for field in Settings.model_fields.values())
