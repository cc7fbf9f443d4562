"""What README and docs show as an example is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from boardlet_cli.cluster import Cluster

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page.name, text)
        for page in PAGES
        for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    ]


OBJECTS = [(page, text) for page, text in blocks("yaml") if "apiVersion:" in text]  # not a file of our own tools


@pytest.mark.parametrize(("page", "text"), OBJECTS, ids=lambda v: v if v.endswith(".md") else "")
def test_yaml_examples_apply(cluster: Cluster, page: str, text: str) -> None:
    """Every example of an object is taken by a real API server, strictly."""
    cluster.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)


def test_there_are_examples() -> None:
    """The README shows what a user writes."""
    assert [page for page, _ in blocks("yaml")].count("README.md") >= 1


@pytest.mark.parametrize(("page", "text"), blocks("python"), ids=lambda v: v if v.endswith(".md") else "")
def test_python_examples_compile(page: str, text: str) -> None:
    """Every Python example is Python."""
    compile(text, page, "exec")
