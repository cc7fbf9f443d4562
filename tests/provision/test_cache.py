"""The cache of built things: whole or not there, made once, and clear about a folder that cannot be written."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from provision import cache
from provision.missing import Missing


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(cache.ROOT_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(into: Path) -> None:
    (into / "x").write_text("whole")


def test_what_failed_is_not_there(root: Path) -> None:
    """A maker that fails, and one that was killed before, leave nothing that is taken for the thing."""

    def fail(into: Path) -> None:
        fill(into)
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError):
        cache.artifact("thing", "1", fail)
    assert not cache.there("thing", "1")
    left = root / "thing/1.partial"
    left.mkdir()
    (left / "half").touch()
    assert [path.name for path in cache.artifact("thing", "1", fill).iterdir()] == ["x"]


def test_two_at_once_make_it_once() -> None:
    """Who comes while it is being made waits, and takes what was made."""
    begun, go_on = threading.Event(), threading.Event()
    made: list[Path] = []

    def slow(into: Path) -> None:
        begun.set()
        go_on.wait(10)
        fill(into)
        made.append(into)

    makers = [threading.Thread(target=cache.artifact, args=("thing", "1", slow)) for _ in range(2)]
    makers[0].start()
    assert begun.wait(10)
    makers[1].start()
    go_on.set()
    for maker in makers:
        maker.join(10)
    assert len(made) == 1


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that is read-only, or none, is told as what this machine lacks, with the variable that helps."""
    monkeypatch.setenv(cache.ROOT_VARIABLE, "/proc/none")
    for make in (lambda: cache.artifact("thing", "1", fill), lambda: cache.scratch("thing")):
        with pytest.raises(Missing, match="set BOARDLET_CACHE to one that can be written"):
            make()
