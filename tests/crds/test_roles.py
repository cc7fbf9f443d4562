"""Roles by the real API server: what each may do, what it may not, and how tenants' ids are kept apart."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from boardlet_cli.cluster import Cluster, KubectlFailed
from waiting import hold_on

ROLES = Path(__file__).parents[2] / "bridge/deploy/roles.yaml"
READS = ("get", "list", "watch")
ALLOWED = {
    "boardlet-viewer": {
        "boards.boardlet.dev": READS,
        "boardmodels.boardlet.dev": READS,
        "enrollments.boardlet.dev": READS,
    },
    "boardlet-operator": {
        "boards.boardlet.dev": (*READS, "update", "patch"),
        "boardmodels.boardlet.dev": READS,
        "enrollments.boardlet.dev": READS,
        "events": READS,
    },
    "boardlet-installer": {
        "boards.boardlet.dev": (*READS, "create"),
        "boardmodels.boardlet.dev": ("get", "list"),
        "enrollments.boardlet.dev": (*READS, "update", "patch", "delete"),
    },
    "boardlet-editor": {
        "boards.boardlet.dev": ("create", "update", "patch", "delete"),
        "boardmodels.boardlet.dev": ("create", "update", "patch", "delete"),
        "enrollments.boardlet.dev": ("update", "patch", "delete"),
    },
}
VERBS = (*READS, "create", "update", "patch", "delete")
RESOURCES = ("boards.boardlet.dev", "boardmodels.boardlet.dev", "enrollments.boardlet.dev", "events")
NEVER = (
    ("patch", "boards.boardlet.dev", "status"),
    ("update", "boards.boardlet.dev", "status"),
    ("patch", "boardmodels.boardlet.dev", "status"),
    ("patch", "enrollments.boardlet.dev", "status"),
    ("get", "secrets", ""),
    ("list", "secrets", ""),
    ("get", "configmaps", ""),
    ("get", "pods", ""),
    ("create", "rolebindings.rbac.authorization.k8s.io", ""),
    ("impersonate", "users", ""),
)
Question = tuple[str, str, str]  # verb, resource.group, subresource


@pytest.fixture
def roles(cluster: Cluster) -> Cluster:
    """The namespace with every role of the file bound to a user of its name."""
    cluster.run("apply", "-f", str(ROLES))
    for role in ALLOWED:
        cluster.run("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}")
    return cluster


def may(cluster: Cluster, user: str, questions: Sequence[Question], namespace: str | None = None) -> list[bool]:
    """What `kubectl auth can-i VERB RESOURCE --subresource=SUB` answers for a user, all questions in one call."""
    items = []
    for verb, resource, sub in questions:
        name, _, group = resource.partition(".")
        asked = {"verb": verb, "resource": name, "group": group, "subresource": sub}
        asked["namespace"] = namespace or str(cluster.namespace)
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        items.append({**review, "spec": {"user": user, "resourceAttributes": asked}})
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    answers = cluster.run("create", "-f", "-", "-o", 'jsonpath={.status.allowed}{"\\n"}', stdin=body).stdout.split()
    assert len(answers) == len(questions)
    return [answer == "true" for answer in answers]


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_do_its_work_and_no_more(roles: Cluster, role: str) -> None:
    """Every verb on every kind is allowed as the table says and denied otherwise, and all in any other namespace."""
    table = {(verb, resource, ""): verb in ALLOWED[role].get(resource, ()) for resource in RESOURCES for verb in VERBS}
    table |= dict.fromkeys(NEVER, False)
    questions = list(table)
    first = [question for question in questions if table[question]][:1]
    # A new binding takes a moment to be known.
    hold_on(lambda: may(roles, role, first) == [True])
    assert dict(zip(questions, may(roles, role, questions), strict=True)) == table
    assert not any(may(roles, role, questions, "default"))
    said = roles.run("auth", "can-i", first[0][0], first[0][1], f"--as={role}").stdout
    assert said.strip() == "yes", "which is what a person asks"


def test_an_installer_may_read_the_one_secret_that_he_needs(roles: Cluster) -> None:
    """As docs/operations.md gives it: the root key's Secret by its name; no other one, no list, and nobody else."""
    page = (ROLES.parents[2] / "docs/operations.md").read_text()
    for words in re.findall(r"^kubectl (create role(?:binding)? \S*root-key .*)$", page, re.MULTILINE):
        own = words.replace("-n boardlet-system", "").replace("--user=ivy", "--user=boardlet-installer")
        roles.run(*own.split())

    def can(user: str, *what: str) -> bool:
        return roles.run("auth", "can-i", *what, f"--as={user}", check=False).stdout.strip() == "yes"

    hold_on(lambda: can("boardlet-installer", "get", "secrets/boardlet-site"))
    for what in (
        ("get", "secrets/other"),
        ("list", "secrets"),
        ("watch", "secrets"),
        ("patch", "secrets/boardlet-site"),
    ):
        assert not can("boardlet-installer", *what), what
    assert not [role for role in ALLOWED if role != "boardlet-installer" and can(role, "get", "secrets/boardlet-site")]


def test_views_and_edits_of_a_namespace_have_its_boards() -> None:
    """Roles view and edit get the reading and the writing one; who only operates or installs gets no more than that."""
    found = {
        part["metadata"]["name"]: {key.rpartition("-")[2] for key in part["metadata"].get("labels", {})}
        for part in yaml.safe_load_all(ROLES.read_text())
        if part["kind"] == "ClusterRole"
    }
    assert found == {
        "boardlet-viewer": {"view"},
        "boardlet-operator": set(),
        "boardlet-installer": set(),
        "boardlet-editor": {"edit"},
    }


def create(cluster: Cluster, name: str, board_id: str) -> None:
    spec = {"boardID": board_id, "modelRef": {"name": "greenhouse"}}
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": name}, "spec": spec}
    cluster.run("create", "-f", "-", stdin=json.dumps(body))


def test_a_tenant_claims_no_id_of_another(roles: Cluster) -> None:
    """In a namespace with a prefix no other id can be claimed, and its tenant cannot lift that."""
    create(roles, "before", "k7m2q9xa")
    roles.run("annotate", "namespace", str(roles.namespace), "boardlet.dev/board-id-prefix=n0")
    deadline = time.monotonic() + 10
    refused = ""
    while not refused and time.monotonic() < deadline:  # the policy and the annotation take a moment to be known
        try:
            create(roles, f"foreign{time.monotonic_ns()}", "p4w8z1vc")
        except KubectlFailed as error:
            refused = str(error)
    assert "spec.boardID must begin with n0 in this namespace" in refused
    create(roles, "own", "n0w8z1vc")
    lifts = [(verb, "namespaces", "") for verb in ("patch", "update")]
    assert not any(may(roles, role, lifts) != [False, False] for role in ALLOWED)
