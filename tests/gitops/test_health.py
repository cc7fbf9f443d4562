"""What GitOps tools are told of a Board's health: Argo CD's Lua in a Lua interpreter, Flux's CEL in the API server."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_cli.cluster import Cluster
from provision import debs
from provision.missing import Missing

GITOPS = Path(__file__).parents[2] / "bridge/gitops"
MAIN = {"Board": "Ready", "BoardModel": "Accepted"}
SPECS: dict[str, dict[str, Any]] = {
    "Board": {"boardID": "k7m2q9xa", "modelRef": {"name": "m"}},
    "BoardModel": {"properties": [{"name": "led", "index": 0, "type": "Boolean", "access": "ReadWrite"}]},
}
# status, reason, generations behind -> as Argo CD calls it
CASES = [
    ("True", "Synced", 0, "Healthy"),
    ("True", "Synced", 1, "Progressing"),
    ("False", "Gone", 0, "Degraded"),
    ("False", "Gone", 1, "Progressing"),
    ("Unknown", "Asking", 0, "Progressing"),
]


def lua(value: Any) -> str:
    """A JSON value as Lua source."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {lua(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(lua, value)) + "}"
    return json.dumps(value)


def judged(kind: str, obj: dict[str, Any]) -> str:
    """What Argo CD's check of this kind says of an object."""
    try:
        program = debs.installed("lua5.4") or debs.program("lua5.4")
    except Missing as missing:
        pytest.skip(str(missing))
    check = yaml.safe_load((GITOPS / "argocd.yaml").read_text())["data"][
        f"resource.customizations.health.boardlet.dev_{kind}"
    ]
    lines = [f"obj = {lua(obj)}", "local function health()", check, "end", "local hs = health()"]
    source = "\n".join([*lines, "assert(hs.message ~= '')", "print(hs.status)"])
    done = subprocess.run(
        [str(program.path), "-"], env=program.env, input=source, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shown(kind: str, status: str, reason: str, behind: int) -> dict[str, Any]:
    condition = {
        "type": MAIN[kind],
        "status": status,
        "reason": reason,
        "message": "m",
        "observedGeneration": 3 - behind,
    }
    return {"metadata": {"generation": 3}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize("kind", sorted(MAIN))
def test_argo_cd_sees_what_is_so(kind: str) -> None:
    """Healthy only for True at this generation, Degraded for False at this one; all else is Progressing."""
    for status, reason, behind, expected in CASES:
        assert judged(kind, shown(kind, status, reason, behind)) == expected, (status, reason, behind)
    assert judged(kind, {"metadata": {"generation": 1}}) == "Progressing"


def test_an_edit_under_way_is_no_failure() -> None:
    """A Board that has been edited and not answered yet is Progressing, though its Ready is False."""
    assert judged("Board", shown("Board", "False", "Pending", 0)) == "Progressing"


@pytest.mark.parametrize("kind", sorted(MAIN))
def test_flux_sees_what_is_so(cluster: Cluster, kind: str) -> None:
    """The API server's own CEL finds `current` and `failed` true exactly where Argo CD says Healthy and Degraded."""
    checks = yaml.safe_load((GITOPS / "flux.yaml").read_text())["spec"]["healthCheckExprs"]
    check = next(check for check in checks if check["kind"] == kind)
    name, plural = f"flux-{kind.lower()}-{cluster.namespace}", f"{kind.lower()}s"
    whole = {w: re.sub(r"\b(status\.conditions|metadata\.)", r"object.\1", check[w]) for w in ("current", "failed")}
    policy = {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}},
            "resourceRules": [
                {
                    "apiGroups": ["boardlet.dev"],
                    "apiVersions": ["*"],
                    "operations": ["UPDATE"],
                    "resources": [f"{plural}/status"],
                }
            ],
        },
        "validations": [{"expression": f"!({text})", "message": f"it is {word}"} for word, text in whole.items()],
    }
    binding = {"policyName": name, "validationActions": ["Warn"]}
    group = "admissionregistration.k8s.io/v1"
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": kind, "metadata": {"name": "g1"}, "spec": SPECS[kind]}
    cluster.run("create", "-f", "-", stdin=json.dumps(body))
    try:
        for policy_kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding)):
            made = {"apiVersion": group, "kind": policy_kind, "metadata": {"name": name}, "spec": spec}
            cluster.run("create", "-f", "-", stdin=json.dumps(made))

        def said(status: str, reason: str, behind: int) -> set[str]:
            one = shown(kind, status, reason, behind)["status"]["conditions"][0]
            one |= {"observedGeneration": 1 - behind, "lastTransitionTime": "2026-01-01T00:00:00Z"}
            patch = json.dumps({"status": {"conditions": [one]}})
            how = ("--subresource=status", "--type=merge", "--dry-run=server", "-p", patch)
            return set(re.findall(r"it is (\w+)", cluster.run("patch", plural, "g1", *how).stderr))

        deadline = time.monotonic() + 30
        while not said("True", "Synced", 0) and time.monotonic() < deadline:
            time.sleep(0.2)  # a policy takes effect a moment after it was made
        words = {"Healthy": {"current"}, "Degraded": {"failed"}, "Progressing": set()}
        more = [("False", "Pending", 0, "Progressing")] if kind == "Board" else []
        for status, reason, behind, expected in [*CASES, *more]:
            assert said(status, reason, behind) == words[expected], (status, reason, behind)
    finally:
        for policy_kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            cluster.run("delete", policy_kind, name, "--ignore-not-found")
