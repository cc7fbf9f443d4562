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


UART = {"type": "String"}
SENSOR = {"type": "Number", "access": "ReadOnly"}


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
        ({"type": "Enum"}, "must be set for Enum, and for Enum only"),
        ({"values": ["On"]}, "must be set for Enum, and for Enum only"),
        ({"type": "Enum", "values": ["A", "A"]}, "Duplicate value"),
        ({"type": "Enum", "values": ["off"]}, "should match"),
        ({"type": "Record"}, "must be set for Record, and for Record only"),
        ({"type": "Record", "fields": [{"name": "a", "type": "Record"}]}, "Unsupported value"),
        ({"type": "Record", "fields": [{"name": "a", "type": "Enum"}]}, "must be set for Enum, and for Enum only"),
        ({"type": "Record", "fields": [{"name": "a", "type": "Boolean"}] * 2}, "must have different names"),
        ({"type": "Record", "fields": [{"name": f"f{i}", "type": "Boolean"} for i in range(9)]}, "at most 8 items"),
        ({"type": "Array", "maxItems": 2}, "must be set for Array, and for Array only"),
        ({"type": "Array", "items": {"type": "String"}}, "must be set for Array, and for Array only"),
        ({"type": "Array", "items": {"type": "String", "minimum": 1}, "maxItems": 2}, "for Integer and Number only"),
        ({"type": "Array", "items": {"type": "String"}, "maxItems": 33}, "less than or equal to 32"),
        ({"type": "Integer", "minimum": 0.5}, "must be a whole number of 32 bits for Integer"),
        ({"type": "Integer", "maximum": 3e9}, "must be a whole number of 32 bits for Integer"),
        ({"report": {"deadband": 1}}, "must be set for Integer and Number only"),
        ({"type": "String", "metric": "Gauge"}, "must be set for Boolean, Integer and Number only"),
        ({"metric": "Counter"}, "Unsupported value"),
        ({"driver": {"type": "PwmOut", "pins": [5]}}, "PwmOut must be an Integer or a Number with access ReadWrite"),
        ({"type": "Number", "driver": {"type": "PwmOut", "pins": [5]}}, "PwmOut must have a minimum and a greater"),
        ({"driver": {"type": "Uart", "pins": [5, 6], "bus": 1}}, "Uart must be a String or Bytes"),
        ({**UART, "driver": {"type": "Uart", "pins": [5, 6]}}, "must be set for Uart, and for Uart only"),
        ({**UART, "driver": {"type": "Uart", "pins": [5, 5], "bus": 1}}, "must be two different pins"),
        ({**SENSOR, "driver": {"type": "Sht3x", "pins": [5, 6], "address": 68}}, "must be set for Sht3x"),
        ({**SENSOR, "driver": {"type": "Bh1750", "pins": [5, 6], "address": 68}}, "must be 0x44 or 0x45 for Sht3x"),
        ({**SENSOR, "driver": {"type": "Ds18x20", "pins": [5], "romCode": "28FF"}}, "should match"),
        ({**SENSOR, "driver": {"type": "Ds18x20", "pins": [4]}}, "every pin must be used by one driver only"),
        ({**SENSOR, "driver": {"type": "Bh1750", "pins": [5, 34], "address": 35}}, "every pin must be used by one"),
        ({**SENSOR, "driver": {"type": "Adc", "pins": [5], "frequencyHertz": 5}}, "must be set for PwmOut only"),
    ],
)
def test_models_that_no_board_could_run_are_refused(cluster: Cluster, fields: dict[str, Any], says: str) -> None:
    """Each mistake in a model is refused by the API server, in words that say what must be."""
    with pytest.raises(KubectlFailed) as refused:
        apply(cluster, with_property(**fields))
    assert says in str(refused.value)
    assert "evaluating rule" not in str(refused.value), "no rule may fail over what another one refuses"


I2C = {"type": "Sht3x", "pins": [22, 21], "address": 68, "measures": "Humidity"}
ROM = {"type": "Ds18x20", "pins": [7], "romCode": "28ff641e0f160354"}
LINE = {"type": "Uart", "pins": [17, 16], "bus": 1}


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ((SENSOR, I2C), (SENSOR, {**I2C, "measures": "Temperature"}), ""),
        ((SENSOR, I2C), (SENSOR, {"type": "Bh1750", "pins": [22, 21], "address": 35}), ""),
        ((SENSOR, I2C), (SENSOR, {**I2C, "pins": [21, 22]}), "every pin must be used by one driver only"),
        ((SENSOR, I2C), (SENSOR, {**I2C, "pins": [22, 5]}), "every pin must be used by one driver only"),
        ((SENSOR, I2C), (SENSOR, {"type": "Adc", "pins": [21]}), "every pin must be used by one driver only"),
        ((SENSOR, ROM), (SENSOR, {**ROM, "romCode": "28aabbccddeeff99"}), ""),
        ((SENSOR, ROM), (SENSOR, ROM), "must have a romCode of its own"),
        ((SENSOR, ROM), (SENSOR, {"type": "Ds18x20", "pins": [7]}), "must have a romCode of its own"),
        ((UART, LINE), ({**UART, "access": "ReadOnly"}, LINE), ""),
        ((UART, LINE), (UART, LINE), "must have one ReadWrite and one ReadOnly property at most"),
        ((UART, LINE), ({**UART, "access": "ReadOnly"}, {**LINE, "baudRate": 300}), "with the same pins and baudRate"),
        ((UART, LINE), ({**UART, "access": "ReadOnly"}, {**LINE, "pins": [5, 6]}), "with the same pins and baudRate"),
        ((UART, LINE), ({**UART, "access": "ReadOnly"}, {**LINE, "bus": 2}), "with the same pins and baudRate"),
    ],
)
def test_only_a_bus_is_shared(cluster: Cluster, one: Any, other: Any, says: str) -> None:
    """Two drivers may have pins in common where these are one bus, and are refused in all other cases."""
    model = copy.deepcopy(MODEL)
    for i, (fields, driver) in enumerate((one, other)):
        row = {"name": f"x{i}", "index": 20 + i, "access": "ReadWrite", **fields, "driver": driver}
        model["spec"]["properties"].append(row)
    if says:
        with pytest.raises(KubectlFailed) as refused:
            apply(cluster, model)
        assert says in str(refused.value)
    else:
        apply(cluster, model)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({"type": "Enum", "values": ["A", "B"]}, {"type": "Enum", "values": ["A", "B", "C"]}, ""),
        ({"type": "Enum", "values": ["A", "B"]}, {"type": "Enum", "values": ["B", "A"]}, "must keep every word"),
        ({"type": "Enum", "values": ["A", "B"]}, {"type": "Enum", "values": ["A"]}, "must keep every word"),
        ({"type": "Record", "fields": [{"name": "a", "type": "Boolean"}]},
         {"type": "Record", "fields": [{"name": "a", "type": "Boolean"}, {"name": "b", "type": "String"}]}, ""),
        ({"type": "Record", "fields": [{"name": "a", "type": "Boolean"}]},
         {"type": "Record", "fields": [{"name": "b", "type": "String"}, {"name": "a", "type": "Boolean"}]},
         "must keep every field"),
        ({"type": "Record", "fields": [{"name": "a", "type": "Boolean"}]},
         {"type": "Record", "fields": [{"name": "a", "type": "String"}]}, "must keep every field"),
        ({"type": "Record", "fields": [{"name": "a", "type": "Enum", "values": ["A"]}]},
         {"type": "Record", "fields": [{"name": "a", "type": "Enum", "values": ["B"]}]}, "must keep every field"),
        ({"type": "Array", "maxItems": 2, "items": {"type": "Enum", "values": ["A"]}},
         {"type": "Array", "maxItems": 4, "items": {"type": "Enum", "values": ["A", "B"]}}, ""),
        ({"type": "Array", "maxItems": 2, "items": {"type": "Boolean"}},
         {"type": "Array", "maxItems": 2, "items": {"type": "String"}}, "must keep its type"),
    ],
)  # fmt: skip
def test_places_on_the_wire_are_a_contract(cluster: Cluster, before: Any, after: Any, says: str) -> None:
    """Words and fields are only added, at the end, and keep their types, so that boards of any age are understood."""
    apply(cluster, with_property(**before))
    if says:
        with pytest.raises(KubectlFailed, match=says):
            apply(cluster, with_property(**after))
    else:
        apply(cluster, with_property(**after))


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


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"keyNumber": 2}, "must be at least keyNumber - 1"),
        ({"keyNumber": 2, "revokedKeyNumber": 1}, {"keyNumber": 1}, "must not fall"),
        ({"keyNumber": 2, "revokedKeyNumber": 2}, {"revokedKeyNumber": 1}, "must not fall"),
        ({"revokedKeyNumber": 1}, None, "must not fall"),
        ({"revokedKeyNumber": 1}, {"keyNumber": 2, "revokedKeyNumber": 1}, ""),
        ({}, {"keyNumber": 2, "rotation": "OverTheAir"}, ""),
        ({}, {"keyNumber": 2, "rotation": "Flash"}, "must be at least keyNumber - 1"),
        ({"keyNumber": 2, "rotation": "OverTheAir"}, {"rotation": None}, "must be at least keyNumber - 1"),
        ({"keyNumber": 2, "rotation": "OverTheAir"}, {"keyNumber": 1}, "must not fall"),
    ],
)
def test_a_revocation_is_for_ever(
    cluster: Cluster, before: dict[str, object], after: dict[str, object] | None, said: str
) -> None:
    """Key numbers only rise; a key is followed by another one when it is revoked, or is changed over the air."""
    apply(cluster, {**BOARD, "spec": {**BOARD["spec"], "credential": before}})
    patch = ["patch", "board", "g1", "--type=merge", "-p", json.dumps({"spec": {"credential": after}})]
    if said:
        with pytest.raises(KubectlFailed, match=said):
            cluster.run(*patch)
    else:
        cluster.run(*patch)


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
    """The account of the bridge sets its finalizer; specs, labels, owners, Secrets, what is others' are denied."""
    apply(cluster, BOARD)
    plane.add_user(BRIDGE)
    bridge = Cluster(cluster.kubectl, plane.kubectl_env(BRIDGE), namespace=cluster.namespace)

    def patch(body: dict[str, Any]) -> None:
        bridge.run("patch", "board", "g1", "--type=merge", "-p", json.dumps(body))

    patch({"metadata": {"finalizers": ["boardlet.dev/mailbox"]}})
    patch({"metadata": {"finalizers": []}})
    # The cluster's garbage collector deletes what is owned by an object that is not there.
    nobody = {"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "00000000-0000-0000-0000-000000000000"}
    for body in (
        {"spec": {"properties": {"led": True}}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"boardlet.dev/accept-restore": "1"}}},
        {"metadata": {"finalizers": ["other.dev/x"]}},
        {"metadata": {"ownerReferences": [nobody]}},
    ):
        with pytest.raises(KubectlFailed, match="must not change"):
            patch(body)
    bridge.run("get", "leases", "-n", "boardlet-system")  # its replicas' own, and nobody else's
    denied = (["delete", "board", "g1"], ["get", "secrets"], ["create", "configmap", "x"], ["get", "pods"])
    for words in (*denied, ["get", "leases"], ["get", "leases", "-n", "kube-system"]):
        with pytest.raises(KubectlFailed, match="orbidden"):
            bridge.run(*words)
