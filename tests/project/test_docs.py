"""The documentation says what the code does: reasons both ways, links, and the README's commands."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
import typer
import yaml
from boardlet_bridge.core import condition, enrollment, notice
from boardlet_cli.main import app

ROOT = Path(__file__).parents[2]
CORE = ROOT / "bridge/boardlet_bridge/core"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WORD = re.compile(r"[A-Z][A-Za-z]+")


def words(literal: object) -> set[str]:
    """The members of a Literal, or of a union of them."""
    found: set[str] = set()
    for member in get_args(literal):
        found |= {member} if isinstance(member, str) else words(member)
    return found


def spoken() -> set[str]:
    """Every string that the code says, beside the lists of what it may say."""
    found: set[str] = set()
    for path in [*CORE.glob("*.py"), *(ROOT / "bridge/boardlet_bridge/runtime").glob("*.py")]:
        for statement in ast.parse(path.read_text()).body:
            if path.name in ("condition.py", "notice.py") and isinstance(statement, ast.Assign):
                continue  # the lists
            for node in ast.walk(statement):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of docs/status.md."""
    text = (ROOT / "docs/status.md").read_text().partition(f"\n## {heading}")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_every_reason_is_documented_and_no_other() -> None:
    """docs/status.md has exactly the reasons that mypy lets pass (condition.Reason), each with a cause."""
    rows = table("Conditions of a Board") + table("Conditions of a BoardModel")
    assert {row[2] for row in rows if WORD.fullmatch(row[2])} == words(condition.Reason)
    assert all(row[3] for row in rows)
    assert {row[0] for row in rows} == words(condition.Type)
    assert {row[1] for row in rows} == words(condition.Status)


def test_what_an_object_says_before_any_bridge_is_documented() -> None:
    """The conditions that the API server gives a new Board or BoardModel stand in docs/status.md too."""
    documented = {tuple(row[:3]) for row in table("Conditions of a Board") + table("Conditions of a BoardModel")}
    for kind in ("boards", "boardmodels"):
        crd = next(yaml.safe_load_all((ROOT / f"crds/{kind}.yaml").read_text()))
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        given = {(c["type"], c["status"], c["reason"]) for c in schema["default"]["conditions"]}
        assert given <= documented


def test_every_fault_of_a_property_is_documented_and_no_other() -> None:
    """docs/status.md has exactly the reasons of status.errors that mypy lets pass."""
    assert {row[0] for row in table("Errors of properties")} == words(condition.Fault)


def test_no_reason_is_only_a_word() -> None:
    """Every reason that is documented is said somewhere in the code, and is not a leftover."""
    assert words(condition.Reason) | words(condition.Fault) <= spoken()


def test_every_event_is_documented_and_no_other() -> None:
    """docs/status.md has exactly the types and reasons of Events that the code can write."""
    documented = [(row[0], reason) for row in table("Events of a Board") for reason in row[1].split(", ")]
    happenings = [h for literal in (notice.Normal, notice.Trouble, notice.Alarm) for h in get_args(literal)]
    assert sorted(documented) == sorted((notice.Notice(h, "").kind, h) for h in happenings)


def test_every_reason_of_an_enrollment_is_documented_and_no_other() -> None:
    """docs/enrolment.md has exactly the reasons that mypy lets pass, with the condition's status as it is written."""
    lines = [line.split("|") for line in (ROOT / "docs/enrolment.md").read_text().splitlines() if line.count("|") == 4]
    rows = {row[2].strip(): row[1].strip() for row in lines if WORD.fullmatch(row[2].strip())}
    assert rows == {reason: enrollment.truth(reason) for reason in get_args(enrollment.Reason)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    """Every relative link of a page leads to a file."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_names_commands_that_exist() -> None:
    """`make X` of the README and docs are targets, `boardlet X` are commands."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(typer.main.get_command(app).commands)
    for page in PAGES:
        blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL))
        assert set(re.findall(r"^make ([a-z0-9-]+)", blocks, re.MULTILINE)) <= targets, page.name
        assert set(re.findall(r"^boardlet ([a-z]+)", blocks, re.MULTILINE)) <= commands, page.name


def test_the_readme_comes_to_the_point() -> None:
    """The first command of the README stands within its first twelve lines."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert next(n for n, line in enumerate(lines) if line.startswith("make demo")) < 13


def test_the_readme_leads_to_a_ready_board() -> None:
    """Its section Install has the commands of docs/install.md, and then three more; the last waits for Ready."""
    install, board = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/install.md").read_text(), re.DOTALL)[:2]
    section = (ROOT / "README.md").read_text().partition("\n## Install\n")[2].partition("\n## ")[0]
    assert re.findall(r"```sh\n(.*?)```", section, re.DOTALL) == [install, board]
    commands = board.replace("\\\n", "").splitlines()
    assert [command.split()[:2] for command in commands] == [
        ["kubectl", "apply"],
        ["boardlet", "flash"],
        ["kubectl", "wait"],
    ]


def test_the_suite_can_be_collected_as_a_whole() -> None:
    """No two files of tests share a name, nor one with a package: one would hide the other, if all are run."""
    names = [path.stem for path in (ROOT / "tests").rglob("*.py") if path.stem not in ("conftest", "__init__")]
    names += [
        path.parent.name for folder in ("tools", "bridge", "firmware") for path in ROOT.glob(f"{folder}/*/__init__.py")
    ]
    assert sorted(names) == sorted(set(names))


def test_every_setting_is_documented() -> None:
    """Every setting of the bridge explains itself in --help."""
    from boardlet_bridge.runtime.settings import Settings

    assert all(field.description for field in Settings.model_fields.values())
