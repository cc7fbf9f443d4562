"""The kinds on a real API server: what they refuse, what they default, and what users see."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_cli.cluster import Cluster, KubectlFailed
from controlplane import ControlPlane

SAMPLES = Path(__file__).parents[2] / "crds/samples"
BRIDGE = "system:serviceaccount:boardlet-system:boardlet-bridge"
MODEL: dict[str, Any] = yaml.safe_load((SAMPLES / "greenhouse.yaml").read_text())
BOARD: dict[str, Any] = {
    "apiVersion": "boardlet.dev/v1alpha1",
    "kind": "Board",
    "metadata": {"name": "g1"},
    "spec": {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}},
}


def apply(cluster: Cluster, obj: dict[str, Any]) -> None:
    cluster.run("apply", "-f", "-", stdin=json.dumps(obj))


def with_property(**fields: Any) -> dict[str, Any]:
    """The sample model with one more property."""
    model = copy.deepcopy(MODEL)
    model["spec"]["properties"].append({"name": "x", "index": 9, "type": "Boolean", "access": "ReadWrite", **fields})
    return model


def test_samples_apply(cluster: Cluster) -> None:
    """Everything in crds/samples is valid, strictly."""
    cluster.run("apply", "--dry-run=server", "--validate=strict", "-f", str(SAMPLES))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"index": 0}, "every property must have an index of its own"),
        ({"index": 255}, "less than or equal to 254"),
        ({"name": "Upper"}, "should match"),
        ({"type": "Float"}, "Unsupported value"),
        ({"minimum": 1, "maximum": 2}, "must be set for Integer and Number only"),
        ({"type": "Number", "minimum": 2, "maximum": 1}, "must be at least minimum"),
        ({"maxLength": 5}, "must be set for String and Bytes only"),
        ({"access": "ReadOnly", "driver": {"type": "GpioOut", "pins": [5]}}, "GpioOut must be a Boolean with access"),
        ({"driver": {"type": "GpioIn", "pins": [5]}}, "GpioIn must be a Boolean with access ReadOnly"),
        ({"driver": {"type": "Adc", "pins": [5]}}, "must be an Integer or a Number with access ReadOnly"),
        ({"driver": {"type": "GpioOut", "pins": [2]}}, "every pin must be used by one driver only"),
        ({"driver": {"type": "GpioOut", "pins": [5, 6]}}, "and one for others"),
        ({"driver": {"type": "GpioOut", "pins": []}}, "should have at least 1 items"),
        ({"driver": {"type": "GpioOut", "pins": [5], "scale": 2}}, "for Adc only"),
        ({"driver": {"type": "GpioOut", "pins": [5], "pull": "Up"}}, "must be set for GpioIn only"),
    ],
)
def test_models_that_no_board_could_run_are_refused(cluster: Cluster, fields: dict[str, Any], says: str) -> None:
    """Each mistake in a model is refused by the API server, in words that say what must be."""
    with pytest.raises(KubectlFailed) as refused:
        apply(cluster, with_property(**fields))
    assert says in str(refused.value)
    assert "evaluating rule" not in str(refused.value), "no rule may fail over what another one refuses"


def test_indexes_are_a_contract(cluster: Cluster) -> None:
    """An index keeps name and type, and is reserved when its property goes; the reservation stays."""
    apply(cluster, MODEL)

    def change(edit: Any) -> None:
        model = copy.deepcopy(MODEL)
        edit(model["spec"])
        apply(cluster, model)

    with pytest.raises(KubectlFailed, match="must keep the name and type of every index"):
        change(lambda spec: spec["properties"][0].update(name="lamp"))
    with pytest.raises(KubectlFailed, match="must list the index of every removed property"):
        change(lambda spec: spec["properties"].pop())

    def remove(spec: dict[str, Any]) -> None:
        spec["properties"].pop()
        spec["reservedIndexes"] = [2]

    change(remove)
    with pytest.raises(KubectlFailed, match=r"must keep every index|must not use an index"):
        change(lambda spec: None)


def test_board_ids_are_fixed(cluster: Cluster) -> None:
    """A board's id has the protocol's form and never changes."""
    for wrong in ("short", "UPPERCASE", "a" * 17, "with/slash"):
        with pytest.raises(KubectlFailed):
            apply(cluster, {**BOARD, "spec": {**BOARD["spec"], "boardID": wrong}})
    apply(cluster, BOARD)
    with pytest.raises(KubectlFailed, match="must not be changed"):
        apply(cluster, {**BOARD, "spec": {**BOARD["spec"], "boardID": "aaaaaaaa"}})


def test_a_sleeping_board_may_stay_away_for_its_sleep(cluster: Cluster) -> None:
    """maxOfflineSeconds below sleepSeconds is refused in words that say what must be; alone or above it is taken."""

    def settings(**fields: int) -> None:
        apply(cluster, {**BOARD, "spec": {**BOARD["spec"], "settings": fields}})

    settings(sleepSeconds=600, maxOfflineSeconds=600)
    settings(maxOfflineSeconds=10)
    settings(sleepSeconds=86400)
    with pytest.raises(KubectlFailed, match=r"maxOfflineSeconds.*must be at least sleepSeconds"):
        settings(sleepSeconds=600, maxOfflineSeconds=599)
    with pytest.raises(KubectlFailed, match="greater than or equal to 1"):
        settings(sleepSeconds=0)


def test_a_new_board_shows_pending_at_once(cluster: Cluster) -> None:
    """Conditions and settings are there before any bridge has looked, so that `kubectl wait` works from the start."""
    apply(cluster, BOARD)
    board = cluster.get("board", "g1")
    assert board["spec"]["settings"] == {"heartbeatSeconds": 60, "logLevel": "Warning"}
    found = {c["type"]: (c["status"], c["reason"]) for c in board["status"]["conditions"]}
    assert found == dict.fromkeys(("Ready", "Connected", "Synced", "Healthy"), ("Unknown", "Pending"))
    assert cluster.run("get", "boards").stdout.split()[:5] == ["NAME", "READY", "REASON", "MODEL", "APP"]


def test_selection_by_id_and_model(cluster: Cluster) -> None:
    """Boards are found by field selectors on id and model."""
    apply(cluster, BOARD)
    for selector in ("spec.boardID=k7m2q9xa", "spec.modelRef.name=greenhouse"):
        assert cluster.run("get", "boards", "--field-selector", selector, "-o", "name").stdout.strip().endswith("/g1")
    assert not cluster.run("get", "boards", "--field-selector", "spec.boardID=aaaaaaaa", "-o", "name").stdout


def test_explain_reads_like_documentation(cluster: Cluster) -> None:
    """Every field of both kinds has a description."""
    bare: list[str] = []

    def walk(node: dict[str, Any], path: str) -> None:
        for name, field in (node.get("properties") or {}).items():
            if path or name in ("spec", "status"):
                if not field.get("description"):
                    items = field.get("items") or {}
                    bare.extend([f"{path}.{name}"] if not items.get("description") else [])
                walk(field, f"{path}.{name}")
                walk(field.get("items") or {}, f"{path}.{name}[]")

    for kind in ("boards", "boardmodels"):
        crd = json.loads(cluster.run("get", "crd", f"{kind}.boardlet.dev", "-o", "json").stdout)
        walk(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "")
    assert not bare


def test_the_bridge_may_do_its_work_and_no_more(cluster: Cluster, plane: ControlPlane) -> None:
    """The bridge's account sets its finalizer; specs, labels, other finalizers, Secrets and deletions are denied."""
    apply(cluster, BOARD)
    plane.add_user(BRIDGE)
    bridge = Cluster(cluster.kubectl, plane.kubectl_env(BRIDGE), namespace=cluster.namespace)

    def patch(body: dict[str, Any]) -> None:
        bridge.run("patch", "board", "g1", "--type=merge", "-p", json.dumps(body))

    patch({"metadata": {"finalizers": ["boardlet.dev/mailbox"]}})
    patch({"metadata": {"finalizers": []}})
    for body in (
        {"spec": {"properties": {"led": True}}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"boardlet.dev/accept-restore": "1"}}},
        {"metadata": {"finalizers": ["other.dev/x"]}},
    ):
        with pytest.raises(KubectlFailed, match="must not change"):
            patch(body)
    for words in (["delete", "board", "g1"], ["get", "secrets"], ["create", "configmap", "x"], ["get", "pods"]):
        with pytest.raises(KubectlFailed, match="orbidden"):
            bridge.run(*words)
