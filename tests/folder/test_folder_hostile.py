"""Files that were written to do harm, or by nobody who knew: each is a problem of its own and ends nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from boardlet_bridge.folder.document import MAX_FILE_BYTES, MAX_INTEGER, parse
from boardlet_bridge.folder.kind import MAX_NAME
from boardlet_bridge.folder.record import LOCK, PATIENCE_S, Records
from boardlet_bridge.folder.source import Source
from boardlet_bridge.folder.view import View
from boardlet_cli import table
from folderworld import BOARD
from test_folder_store import board, problems, record, root, served
from waiting import until

__all__ = ["root"]  # the fixture

NINE = ",".join(["*a{0}"] * 9)


def nines(opening: str, closing: str) -> str:
    """Nine generations, each of which is the one before nine times."""
    lines = [f"a{n + 1}: &a{n + 1} {opening}{NINE.format(n)}{closing}\n" for n in range(9)]
    return "a0: &a0 {x: 1}\n" + "".join(lines)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[" * 200_000, "nested more than 100 deep"),
        ("- " * 200_000, "nested more than 100 deep"),
        ("{a: " * 200_000, "nested more than 100 deep"),
        ("&a [*a]", "recursion"),
        (nines("[", "]"), "values, counting each alias"),
        (nines("{<<: [", "]}"), "values, counting each merge"),
        ("a: !!timestamp tomorrow", "its tag"),
        ("a: !!bool perhaps", "its tag"),
        ('a: !!int ""', "its tag"),
        ('a: !!float ""', "its tag"),
        ("a: !!map [1]", "its tag"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (f"a: {MAX_INTEGER + 1}", "an integer is beyond"),
        ("a: 0x" + "f" * 5000, "an integer is beyond"),
        ("a: " + "9" * 5000, "limit"),
    ],
    ids=lambda text: text[:20] if len(text) < 300 else f"{text[:5]}{len(text)}",
)
def test_no_text_ends_the_reader(text: str, cause: str) -> None:
    """Depth, aliases, merges, tags and numbers without bound are one problem with its cause, and cost little."""
    documents, (problem,) = parse(text, "site.yaml")
    assert documents == []
    assert cause in problem.cause


def test_merges_of_a_bearable_size_are_merges() -> None:
    """What is not a bomb is read as YAML says, the own key before the merged one."""
    (document,), said = parse("base: &b {led: true, target: 5}\nmine: {<<: *b, led: false}\n", "site.yaml")
    assert not said
    assert document.object["mine"] == {"led": False, "target": 5}


def test_only_files_are_read(tmp_path: Path) -> None:
    """A pipe, and a link to a device without end as Git brings it, are said; the reader neither waits nor fills up."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (tmp_path / "g1.yaml").write_text(BOARD)
    source = Source(tmp_path)
    source.look()
    found = source.found({})
    assert list(found.objects) == [("boards", "default", "g1")]
    causes = {problem.file: problem.cause for problem in found.problems}
    assert causes.keys() == {"pipe.yaml", "zero.yaml", "large.yaml"}
    assert causes["pipe.yaml"] == causes["zero.yaml"] == "is no file, but a device or a pipe"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BOARD.replace("k7m2q9xa", '"k7m2q9xa\\n"'), "spec.boardID: must match"),
        (BOARD.replace("name: g1", "name: " + "a" * (MAX_NAME + 1)), f"at most {MAX_NAME}"),
        (BOARD + "  credential: {keyNumber: 2.5}\n", "must be of type integer"),
        (BOARD.replace("kind: Board", "kind: " + "b" * 100_000), "its kind is none of"),
        (BOARD.replace("{led: false}", "{" + ",".join(f"a{n}: {{b: [1]}}" for n in range(300)) + "}"), "at most"),
    ],
    ids=["line end", "long name", "half a number", "long kind", "many"],
)
def test_what_a_schema_lets_through_in_python(tmp_path: Path, text: str, cause: str) -> None:
    """What an API server would refuse, or no file can bear, is refused, in a few words."""
    (tmp_path / "g1.yaml").write_text(text)
    source = Source(tmp_path)
    source.look()
    found = source.found({})
    assert not found.objects
    assert cause in found.problems[0].cause
    assert all(len(str(problem)) < 2000 for problem in found.problems)


def test_a_whole_number_may_be_written_with_a_point(tmp_path: Path) -> None:
    """2.0 is 2, as an API server has it: a key's number that is a float would be no number for the broker's files."""
    (tmp_path / "g1.yaml").write_text(BOARD + "  credential: {keyNumber: 2.0, revokedKeyNumber: 1.0}\n")
    source = Source(tmp_path)
    source.look()
    (document,) = source.found({}).objects.values()
    assert [type(n) for n in document.object["spec"]["credential"].values()] == [int, int]


@pytest.mark.parametrize("name", [b"gew\xe4chshaus.yaml", b"two\nlines: 1.yaml", b"north/\xff/g2.yaml"])
def test_names_of_files_are_any_bytes(root: Path, name: bytes) -> None:
    """A name that is no UTF-8, or would be a line of its own in a status file, is said; all others are served."""

    async def run() -> None:
        async with served(root) as (_, told):
            path = root / os.fsdecode(name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(board("other"))
            await until(lambda: problems(root))
            (said,) = problems(root)
            assert said["cause"] == "its name is no printable UTF-8"
            assert said["next"] == "rename it"
            (root / "third.yaml").write_text(board("third", "k7m2q9xc"))
            await until(lambda: told.generation("third") == 1)
            assert not told.generation("other")

    asyncio.run(run())


@pytest.mark.parametrize("text", ["", "hello", "[1, 2]", "{metadata: 5, file: x}"])
def test_a_status_file_of_anything(root: Path, text: str) -> None:
    """What a broken disk leaves of a status file does not keep the bridge from starting."""
    path = root / ".status/default/boards/g1.status"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    bad: list[str] = []
    assert list(Records(root).load(lambda file, _why: bad.append(file))) == []
    assert bad == [".status/default/boards/g1.status"]
    (root / ".status/default/apps").mkdir()
    (root / ".status/default/apps/a.status").write_text("{kind: App}")  # another release's

    async def run() -> None:
        async with served(root) as (_, told):
            await until(lambda: told.generation() == 1)
            assert record(root)["kind"] == "Board"

    asyncio.run(run())


def test_who_looks_keeps_no_bridge_from_starting(tmp_path: Path) -> None:
    """A command that looks whether a bridge serves the folder, just as one starts, is no second bridge."""
    records = Records(tmp_path)
    records.prepare()
    with open(records.folder / LOCK, "w") as looks:
        fcntl.flock(looks, fcntl.LOCK_SH)
        timer = threading.Timer(PATIENCE_S / 4, fcntl.flock, (looks, fcntl.LOCK_UN))
        timer.start()
        handle = records.lock()
        timer.join()
    try:
        assert records.served
    finally:
        os.close(handle)


def test_words_have_no_power_over_a_terminal(tmp_path: Path) -> None:
    """A label that somebody brought by Git is shown as what it is by describe, and a board's word in a table too."""
    (tmp_path / "g1.yaml").write_text(BOARD)
    (item,) = View(tmp_path).items.values()
    obj = {**item.object, "metadata": {**item.object["metadata"], "labels": {"site": "\x1b[2J\x9b2J"}}}
    shown = table.described(replace(item, object=obj), [])
    assert "site=\\x1b[2J\\x9b2J" in shown
    assert table.aligned([["\x1b]0;x\x07"]]) == ["\\x1b]0;x\\x07"]
