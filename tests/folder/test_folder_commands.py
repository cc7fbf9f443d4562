"""`boardlet get`, `describe`, `set` and `watch` on a folder, with and without a bridge that serves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_bridge.folder.edit import EditRefused, set_properties
from boardlet_cli.main import app
from boardlet_cli.objects import ObjectError
from folderworld import BOARD, SAMPLES
from typer.testing import CliRunner


class Shell:
    """The commands in a folder; `code`, `out` and `err` are of the last one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.code, self.out, self.err = 0, "", ""

    def run(self, *words: str) -> Shell:
        done = CliRunner().invoke(app, [*words, "--store", f"dir:{self.root}"])
        if done.exception and not isinstance(done.exception, SystemExit | ObjectError):
            raise done.exception
        self.code, self.out, self.err = done.exit_code, done.stdout, done.stderr
        if isinstance(done.exception, ObjectError):
            self.err += str(done.exception)  # main() prints it
        return self


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder that no bridge has served yet."""
    root = tmp_path / "objects"
    root.mkdir()
    for name in ("greenhouse", "thermostat"):
        (root / f"{name}.yaml").write_text((SAMPLES / f"{name}.yaml").read_text())
    (root / "g1.yaml").write_text(BOARD)
    return Shell(root)


def status(root: Path, generation: int = 1, **spec: Any) -> None:
    """A status file as a bridge writes it."""
    folder = root / ".status/default/boards"
    folder.mkdir(parents=True, exist_ok=True)
    condition = {"status": "True", "reason": "Synced", "message": "it runs", "lastTransitionTime": "x"}
    full = {
        "boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}, "properties": {"led": False},
        "credential": {"keyNumber": 1, "revokedKeyNumber": 0},
        "settings": {"heartbeatSeconds": 60, "logLevel": "Warning"}, **spec,
    }  # fmt: skip
    obj = {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "Board",
        "metadata": {
            "name": "g1", "namespace": "default", "uid": "0b5f9f5e-58f3-4d5a-8c5f-0d3e3f1f6a01",
            "generation": generation, "resourceVersion": "5", "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": full,
        "status": {
            "observedGeneration": generation,
            "conditions": [{"type": kind, **condition} for kind in ("Ready", "Synced")],
            "reported": {"led": False},
        },
        "file": "g1.yaml",
        "events": [{"time": "2026-01-02T03:04:05Z", "type": "Normal", "reason": "Connected", "message": "it answers"}],
    }  # fmt: skip
    (folder / "g1.status").write_text(yaml.safe_dump(obj))


def test_get_is_a_table_like_kubectls(shell: Shell) -> None:
    """The kinds' own columns; what no bridge has read yet is Unknown and Unread, and that nobody serves it is said."""
    shell.run("get", "boards")
    assert [line.split() for line in shell.out.splitlines()] == [
        ["NAME", "READY", "REASON", "MODEL", "APP", "AGE"],
        ["g1", "Unknown", "Unread", "greenhouse"],
    ]
    assert "no bridge serves this folder" in shell.err
    status(shell.root)
    line = shell.run("get", "board", "g1", "-o", "wide").out.splitlines()[1].split()
    assert line[:4] == ["g1", "True", "Synced", "greenhouse"]
    assert line[-1].endswith("d")
    assert shell.run("get", "bdm", "-A").out.split()[:3] == ["NAMESPACE", "NAME", "ACCEPTED"]


def test_an_edit_that_no_bridge_has_read_is_not_shown_as_done(shell: Shell) -> None:
    """The status of another spec does not pass for an answer to this one, in no form of output."""
    status(shell.root, properties={"led": True})
    obj = json.loads(shell.run("get", "board/g1", "--json").out)
    assert obj["metadata"]["generation"] == 2
    assert obj["status"]["observedGeneration"] == 1
    assert {c["type"]: c["reason"] for c in obj["status"]["conditions"]} == {"Ready": "Unread", "Synced": "Unread"}


def test_forms_of_output(shell: Shell) -> None:
    """One JSON object a line, a List, YAML that a folder takes again, and names."""
    assert len(shell.run("get", "boards,boardmodels", "--json").out.splitlines()) == 3
    assert len(json.loads(shell.run("get", "boards,boardmodels", "-o", "json").out)["items"]) == 3
    assert shell.run("get", "boards", "-o", "name").out == "board/g1\n"
    status(shell.root)
    text = shell.run("get", "boards,boardmodels", "-o", "yaml").out
    other = Shell(shell.root.parent / "other")
    other.root.mkdir()
    (other.root / "all.yaml").write_text(text)
    assert other.run("get", "boards,boardmodels", "-o", "name").out.split() == [
        "board/g1", "boardmodel/greenhouse", "boardmodel/thermostat",
    ]  # fmt: skip


@pytest.mark.parametrize("read", [False, True], ids=["never-served", "not-served-now"])
def test_what_goes_to_a_cluster_has_the_words_of_the_file(shell: Shell, read: bool) -> None:
    """Labels and annotations are the file's, without a bridge too: moving must not lose what selects a Board."""
    if read:
        status(shell.root)
    words = "labels: {site: north}\n  annotations: {contact: Ada}"
    (shell.root / "g1.yaml").write_text(BOARD.replace("name: g1\n", f"name: g1\n  {words}\n"))
    meta = {"name": "g1", "namespace": "default", "labels": {"site": "north"}, "annotations": {"contact": "Ada"}}
    assert yaml.safe_load(shell.run("get", "board/g1", "-o", "apply").out)["metadata"] == meta
    assert "site=north" in shell.run("describe", "board/g1").out
    (shell.root / "g1.yaml").write_text(BOARD)
    assert set(yaml.safe_load(shell.run("get", "board/g1", "-o", "apply").out)["metadata"]) == {"name", "namespace"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["get", "board", "nobody"], 1, 'boards "nobody" not found'),
        (["get", "bords"], 2, "there is no kind 'bords'"),
        (["get", "boards", "-n", "elsewhere"], 0, "No resources found in elsewhere namespace"),
        (["describe", "board/nobody"], 1, "not found"),
        (["set", "board/nobody", "led=true"], 1, "not found"),
        (["set", "g1", "led=true"], 2, "there is no kind 'g1'"),
        (["set", "board/g1", "led"], 2, "must be NAME=VALUE"),
        (["set", "board/g1", "lamp=true"], 1, "model greenhouse has no property 'lamp'; it has led, light, door"),
        (["set", "board/g1", "light=5"], 1, "light: must not be set, the model says that it is ReadOnly"),
        (["set", "board/g1", "led=5"], 1, "(WrongType)"),
    ],
)
def test_exit_codes_and_words(shell: Shell, words: list[str], code: int, said: str) -> None:
    """Whatever goes wrong has the documented exit code and says what to do, and writes nothing."""
    shell.run(*words)
    assert (shell.code, said in " ".join((shell.err + shell.out).split())) == (code, True), shell.err
    assert (shell.root / "g1.yaml").read_text() == BOARD


def test_a_store_must_be_named(shell: Shell) -> None:
    """Without --store the command says how to name one, and what to use for a cluster."""
    done = CliRunner().invoke(app, ["get", "boards"], env={"BOARDLET_STORE": ""})
    assert done.exit_code == 2
    assert "for a cluster use kubectl" in " ".join(done.stderr.split())


def test_describe_has_everything(shell: Shell) -> None:
    """File, spec, conditions, values, events, and what is not taken of its file."""
    status(shell.root)
    (shell.root / "copy.yaml").write_text(BOARD)
    out = shell.run("describe", "board", "g1").out
    parts = ["File:        g1.yaml", "boardID: k7m2q9xa", "Ready    True", "led: false", "it answers", "copy.yaml:2"]
    assert [part for part in parts if part not in out] == []


def test_set_leaves_everything_else_as_it_is(shell: Shell) -> None:
    """One value changes; comments, order and all other lines are the same bytes."""
    assert shell.run("set", "board/g1", "led=true").code == 0
    assert (shell.root / "g1.yaml").read_text() == BOARD.replace("{led: false}", "{led: true}")
    assert "board/g1 edited in g1.yaml: led=true" in shell.out


def test_set_waits_for_the_board_in_vain(shell: Shell) -> None:
    """--wait ends with exit code 1 and says why the board does not run it; the edit stays."""
    shell.run("set", "board/g1", "led=true", "--wait", "0.1")
    assert shell.code == 1
    assert "no bridge serves this folder" in shell.err
    assert "led: true" in (shell.root / "g1.yaml").read_text()


def test_watch_shows_what_there_is_and_ends_in_time(shell: Shell) -> None:
    """The first look comes at once, and --for ends it."""
    shell.run("watch", "boards", "--for", "0.3")
    assert shell.code == 0
    assert len(shell.out.splitlines()) == 2


HEAD = "kind: Board\nmetadata: {name: g1}\nspec:\n  boardID: k7m2q9xa # its id\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "  properties: {led: true}\n"),
        ("  properties: {}\n", "  properties: {led: true}\n"),
        ("  properties:\n", "  properties: {led: true}\n"),
        ("  properties: {led: false} # off\n", "  properties: {led: true} # off\n"),
        ("  properties: {mode: Idle}\n", "  properties: {mode: Idle, led: true}\n"),
        ("  properties:\n    led: no # off\n", "  properties:\n    led: true # off\n"),
        ("  properties:\n    mode: Idle # x\n    # y\n", "  properties:\n    mode: Idle # x\n    led: true\n    # y\n"),
        ("  properties:\n    a: |\n      b\n", "  properties:\n    a: |\n      b\n    led: true\n"),
        ("  properties:\n    led: >\n      b\n  z: 1\n", None),
        ("  properties:\n    led:\n    - 1\n", None),
        ("  z: &a {led: false}\n  properties: *a\n", None),
    ],
)
def test_where_a_value_goes(before: str, after: str | None) -> None:
    """Into the mapping that is there, in its own style; what cannot be done without touching more is refused."""
    tail = "---\n# another\nkind: Board\nmetadata: {name: g2}\nspec: {}\n"
    if after is None:
        with pytest.raises(EditRefused, match="by hand"):
            set_properties(HEAD + before + tail, "default", "g1", {"led": True})
    else:
        assert set_properties(HEAD + before + tail, "default", "g1", {"led": True}) == HEAD + after + tail
        crlf = (HEAD + before + tail).replace("\n", "\r\n")
        assert set_properties(crlf, "default", "g1", {"led": True}) == (HEAD + after + tail).replace("\n", "\r\n")


def test_values_are_written_as_they_are_meant() -> None:
    """Strings that YAML would read as something else are quoted; JSON stays JSON."""
    values = {"a": "on", "b": "12", "c": "Heat", "d": {"low": 1.5}, "e": [1, 2], "f": "x: y", "g": 1e30}
    for text in (HEAD, json.dumps(yaml.safe_load(HEAD))):
        made = set_properties(text, "default", "g1", values, text.startswith("{"))
        assert yaml.safe_load(made)["spec"]["properties"] | {"g": 1e30} == values
        if text.startswith("{"):
            assert json.loads(made)["spec"]["properties"] == values
