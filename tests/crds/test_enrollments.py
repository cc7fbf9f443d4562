"""Enrollments on a real API server: what they refuse, and what the bridge may do with them and no more."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from boardlet_cli.cluster import Cluster, KubectlFailed

RIGHTS = Path(__file__).parents[2] / "bridge/deploy/enrollment.yaml"
BRIDGE = "system:serviceaccount:boardlet-system:boardlet-bridge"
REQUEST = {"hardware": "a0b765123456", "fingerprint": "4f5a3c1200ab89de", "publicKey": "ab" * 32}
OBJECT: dict[str, Any] = {
    "apiVersion": "boardlet.dev/v1alpha1",
    "kind": "Enrollment",
    "metadata": {"name": "a0b765123456-4f5a3c1200ab89de"},
    "spec": {"request": REQUEST},
}
APPROVED = {"approved": True, "boardName": "g7", "modelRef": {"name": "greenhouse"}}


def said(**fields: Any) -> dict[str, Any]:
    obj = copy.deepcopy(OBJECT)
    obj["spec"]["request"] |= fields
    return obj


def decided(**fields: Any) -> dict[str, Any]:
    obj = copy.deepcopy(OBJECT)
    obj["spec"] |= fields
    return obj


def create(cluster: Cluster, obj: dict[str, Any], *options: str) -> None:
    cluster.run("create", "-f", "-", *options, stdin=json.dumps(obj))


def patch(cluster: Cluster, spec: dict[str, Any], *options: str) -> None:
    name = OBJECT["metadata"]["name"]
    cluster.run("patch", "enrollment", name, "--type=merge", "-p", json.dumps({"spec": spec}), *options)


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (said(hardware="A0"), "should match"),
        (said(hardware="a0b"), "should match"),
        (said(hardware="a0" * 17), "Too long"),
        (said(fingerprint="4f5a3c1200ab89d"), "at least 16 chars"),
        (said(publicKey="ab" * 33), "Too long"),
        (said(machine="x" * 65), "Too long"),
        (said(machine="\x1b[2J"), "should match"),
        (said(agent="0.1.0\n"), "should match"),
        (said(port="ü"), "should match"),
        (decided(approved=True), "must come with boardName and modelRef"),
        (decided(**{**APPROVED, "boardName": "G7"}), "should match"),
        (decided(**APPROVED, boardID="short"), "at least 8 chars"),
    ],
)
def test_what_no_bridge_would_write_is_refused(cluster: Cluster, obj: dict[str, Any], says: str) -> None:
    """Every word of a stranger is bounded by the API server too, and an approval is whole or none."""
    with pytest.raises(KubectlFailed) as refused:
        create(cluster, obj, "--dry-run=server")
    assert says in str(refused.value)


def test_what_was_said_and_approved_stays(cluster: Cluster) -> None:
    """The request is immutable; an approval may be taken back, and not be turned to another Board."""
    create(cluster, OBJECT)
    with pytest.raises(KubectlFailed, match="it is what the board has said"):
        patch(cluster, {"request": {"publicKey": "cd" * 32}})
    patch(cluster, APPROVED)
    with pytest.raises(KubectlFailed, match="must not be changed once approved"):
        patch(cluster, {"boardName": "g8"})
    patch(cluster, {"approved": False})


def test_the_bridge_decides_nothing(cluster: Cluster) -> None:
    """With its account one can make an Enrollment and its Board, and cannot approve, edit, delete, or set a value."""
    cluster.run("apply", "-f", str(RIGHTS))
    bind = ["--clusterrole=boardlet-bridge-enrollment", "--serviceaccount=boardlet-system:boardlet-bridge"]
    cluster.run("create", "rolebinding", "boardlet-bridge-enrollment", *bind)
    bridge = f"--as={BRIDGE}"
    until_refused(cluster, decided(**APPROVED), "must not decide on an Enrollment", bridge)
    create(cluster, OBJECT, bridge)
    with pytest.raises(KubectlFailed, match="cannot patch resource"):
        patch(cluster, APPROVED, bridge)
    with pytest.raises(KubectlFailed, match="cannot delete resource"):
        cluster.run("delete", "enrollment", OBJECT["metadata"]["name"], bridge)
    board: dict[str, Any] = {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "Board",
        "metadata": {"name": "g7", "labels": {"boardlet.dev/enrollment": OBJECT["metadata"]["name"]}},
        "spec": {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}},
    }
    valued = {**board, "spec": {**board["spec"], "properties": {"led": True}}}
    for wrong in (valued, {**board, "metadata": {"name": "g7"}}):
        with pytest.raises(KubectlFailed, match="for an Enrollment alone, without values"):
            create(cluster, wrong, bridge)
    create(cluster, board, bridge)


def until_refused(cluster: Cluster, obj: dict[str, Any], says: str, *options: str) -> None:
    """Rights and a policy that were just applied take a moment to be known."""
    words = ""
    for _ in range(100):
        try:
            create(cluster, obj, "--dry-run=server", *options)
        except KubectlFailed as error:
            words = str(error)
            if says in words:
                return
    raise AssertionError(words or "it was taken")
