"""The kinds' rules in a folder: what CEL refuses in a cluster is refused here, in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_bridge.folder.change import broken
from boardlet_bridge.folder.kind import kinds
from boardlet_bridge.runtime.settings import SettingsInvalid, load

CRDS = Path(__file__).parents[2] / "crds"
OLD_BOARD: dict[str, Any] = {
    "boardID": "k7m2q9xa",
    "credential": {"keyNumber": 2, "revokedKeyNumber": 1},
    "settings": {},
}
OLD_MODEL: dict[str, Any] = {
    "properties": [
        {"name": "led", "index": 0, "type": "Boolean"},
        {"name": "mode", "index": 1, "type": "Enum", "values": ["Idle", "Heat"]},
        {"name": "week", "index": 2, "type": "Array", "items": {"type": "Enum", "values": ["A", "B"]}},
        {"name": "box", "index": 3, "type": "Record", "fields": [{"name": "low", "type": "Integer"}]},
    ],
    "reservedIndexes": [9],
}
PROPERTIES = OLD_MODEL["properties"]


def other(n: int, **changed: Any) -> dict[str, Any]:
    """The old model with one property changed."""
    return {**OLD_MODEL, "properties": [{**p, **changed} if i == n else p for i, p in enumerate(PROPERTIES)]}


# The new spec, and a word of the only rule that it breaks.
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("Board", {"boardID": "other123"}, "must not be changed; a board's id is fixed at flashing"),
    ("Board", {"credential": {"keyNumber": 3, "revokedKeyNumber": 1}}, "must be at least keyNumber - 1"),
    ("Board", {"credential": {"keyNumber": 1, "revokedKeyNumber": 1}}, "a number that was used is never used again"),
    ("Board", {"credential": {"keyNumber": 2, "revokedKeyNumber": 2}}, ""),
    ("Board", {"credential": {"keyNumber": 3, "revokedKeyNumber": 1, "rotation": "OverTheAir"}}, ""),
    ("Board", {"settings": {"sleepSeconds": 9, "maxOfflineSeconds": 8}}, "must be at least sleepSeconds"),
    ("Board", {"settings": {"sleepSeconds": 9}}, ""),
    ("BoardModel", other(0, name="lamp"), "must keep the name and type of every index"),
    ("BoardModel", other(0, type="Integer"), "must keep the name and type of every index"),
    ("BoardModel", {"properties": PROPERTIES[1:]}, "must list the index of every removed property"),
    ("BoardModel", {"properties": PROPERTIES[1:], "reservedIndexes": [9, 0]}, ""),
    ("BoardModel", {"reservedIndexes": []}, "must keep every index that it has"),
    ("BoardModel", {"reservedIndexes": [9, 1]}, "must not use an index that is in reservedIndexes"),
    ("BoardModel", other(1, values=["Heat", "Idle"]), "must keep every word in its place; new ones go to the end"),
    ("BoardModel", other(1, values=["Idle", "Heat", "Cool"]), ""),
    ("BoardModel", other(2, items={"type": "Integer"}), "must keep its type, and every word in its place"),
    ("BoardModel", other(2, items={"type": "Enum", "values": ["B"]}), "must keep its type, and every word"),
    ("BoardModel", other(3, fields=[]), "must keep every field in its place with its type and words"),
    ("BoardModel", other(3, fields=[{"name": "low", "type": "Number"}]), "must keep every field in its place"),
    ("BoardModel", other(3, fields=[{"name": "low", "type": "Integer"}, {"name": "a", "type": "Enum"}]), ""),
]


@pytest.mark.parametrize(("kind", "changes", "rule"), BROKEN)
def test_each_rule(kind: str, changes: dict[str, Any], rule: str) -> None:
    """A change breaks exactly the rule that it should, or none."""
    old = OLD_BOARD if kind == "Board" else OLD_MODEL
    said = broken(kind, {**old, **changes}, old)
    assert [rule in line for line in said] == ([True] if rule else []), said


def test_a_revocation_is_not_taken_back() -> None:
    """What is revoked stays so, also when the key itself is lowered with it."""
    lower = {**OLD_BOARD, "credential": {"keyNumber": 1, "revokedKeyNumber": 0}}
    assert any("what is revoked stays so" in line for line in broken("Board", lower, OLD_BOARD))


def test_no_rule_is_missing() -> None:
    """Every CEL rule of a Board, and every one about a change of a model, is one of those that are tested above."""
    tested = [rule for _, _, rule in BROKEN if rule] + ["what is revoked stays so"]
    asked = []
    for name in ("boards", "boardmodels"):
        crd = next(yaml.safe_load_all((CRDS / f"{name}.yaml").read_text()))
        for rule in _rules(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
            if name == "boards" or "oldSelf" in rule["rule"] or "reservedIndexes" in rule["rule"]:
                asked.append(rule["message"])
    assert len(asked) >= 12
    assert [message for message in asked if not any(rule in message for rule in tested)] == []


def _rules(schema: Any) -> Iterator[dict[str, str]]:
    if isinstance(schema, dict):
        yield from schema.get("x-kubernetes-validations") or ()
        for inner in schema.values():
            yield from _rules(inner)


@pytest.mark.parametrize("sample", sorted((CRDS / "samples").glob("*.yaml")), ids=lambda p: p.name)
def test_samples_are_taken(sample: Path) -> None:
    """Every sample is good in a folder too."""
    for obj in yaml.safe_load_all(sample.read_text()):
        kind = kinds()[obj["kind"]]
        made = kind.defaulted(obj)
        assert kind.mistakes(made) == []
        assert broken(kind.title, made["spec"], None) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("store: /etc/site", "--store .*must be cluster or dir:PATH.*is '/etc/site'"),
        ("store: 'dir:'", "must be cluster or dir:PATH"),
        ("store: dir:x\nkubeconfig: y", "is a folder, and kubeconfig names a cluster"),
        ("store: dir:x\nstore_absent_s: -1", "--store-absent-s .*greater than or equal to 0"),
    ],
)
def test_a_wrong_store_is_named_with_its_cause(tmp_path: Path, line: str, said: str) -> None:
    """A store that cannot be meant is refused before anything starts."""
    config = tmp_path / "bridge.yaml"
    config.write_text(f"root_key_file: x\n{line}\n")
    with pytest.raises(SettingsInvalid, match=said):
        load(["--config", str(config)])


def test_a_store_is_a_cluster_or_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is a cluster; dir:PATH is a folder, ~ included."""
    monkeypatch.delenv("BOARDLET_STORE", raising=False)
    assert load(["--root-key-file", "x"]).store_folder is None
    assert load(["--root-key-file", "x", "--store", "dir:/srv/site"]).store_folder == Path("/srv/site")
    assert load(["--root-key-file", "x", "--store", "dir:~/site"]).store_folder == Path.home() / "site"
