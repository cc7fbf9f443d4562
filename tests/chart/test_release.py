"""A release through its life on a real API server: what Helm changes, and what it must leave alone."""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import controlplane
import pytest
import yaml
from boardlet_cli.cluster import Cluster
from provision.missing import Missing

ROOT = Path(__file__).parents[2]
CHART = ROOT / "bridge/chart"
NAMESPACE = "boardlet-system"


class Release:
    """One release named boardlet on a control plane of its own: kinds belong to a whole cluster."""

    def __init__(self, helm: Any, plane: controlplane.ControlPlane) -> None:
        self.helm, self.env = helm, plane.kubectl_env()
        self.cluster = Cluster(plane.programs.kubectl, self.env, namespace=NAMESPACE)

    def run(self, *arguments: str | Path, check: bool = True) -> Any:
        return self.helm.run(*arguments, "-n", NAMESPACE, env=self.env, check=check)

    def root_key(self) -> str:
        return base64.b64decode(self.cluster.get("secret", "boardlet-site")["data"]["root.key"]).decode()

    def setting(self, name: str) -> str | None:
        pod = self.cluster.get("deployment", "boardlet-bridge")["spec"]["template"]["spec"]
        return {e["name"]: e["value"] for e in pod["containers"][0]["env"]}.get(name)


@pytest.fixture(scope="module")
def release(helm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    try:
        programs = controlplane.find()
    except Missing as missing:
        pytest.skip(str(missing))
    with controlplane.ControlPlane(tmp_path_factory.mktemp("plane"), programs) as plane:
        made = Release(helm, plane)
        made.run("install", "boardlet", CHART, "--create-namespace", "--wait=hookOnly")
        yield made


def test_install_upgrade_rollback_uninstall(release: Release) -> None:
    """The root key, the kinds and every Board outlive upgrade, rollback, uninstall and a new install."""
    cluster = release.cluster
    cluster.run("wait", "--for=condition=Established", "crd/boards.boardlet.dev", "crd/boardmodels.boardlet.dev")
    key = release.root_key()
    assert len(bytes.fromhex(key)) == 32
    cluster.run("apply", "-f", str(ROOT / "crds/samples/greenhouse.yaml"))
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "g1"}}
    body["spec"] = {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}, "properties": {"led": True}}
    cluster.run("create", "-f", "-", stdin=json.dumps(body))
    uid = cluster.get("board", "g1")["metadata"]["uid"]

    release.run("upgrade", "boardlet", CHART, "--set", "settings.log_level=debug", "--wait=hookOnly")
    assert release.setting("BOARDLET_LOG_LEVEL") == "debug"
    assert release.root_key() == key
    release.run("rollback", "boardlet", "1", "--wait=hookOnly")
    assert release.setting("BOARDLET_LOG_LEVEL") is None
    assert release.root_key() == key
    release.run("uninstall", "boardlet", "--wait=hookOnly")
    assert cluster.find("deployment", "boardlet-bridge") is None
    assert cluster.find("clusterrole", "boardlet-bridge") is None
    assert cluster.get("board", "g1")["metadata"]["uid"] == uid
    assert release.root_key() == key
    release.run("install", "boardlet", CHART, "--wait=hookOnly")
    assert release.root_key() == key
    assert cluster.get("board", "g1")["metadata"]["uid"] == uid


def test_a_replaced_root_key_outlives_upgrade_and_rollback(release: Release) -> None:
    """The Secret is made once and is no part of the release: no revision brings back the root key of its time."""
    both = f"1 {release.root_key()}\n100 {bytes(range(32)).hex()}"
    body = {"data": {"root.key": base64.b64encode(both.encode()).decode()}}
    before = release.cluster.get("secret", "boardlet-site")["data"]
    revision = json.loads(release.run("history", "boardlet", "-o", "json").stdout)[-1]["revision"]
    release.cluster.run("patch", "secret", "boardlet-site", "--type=merge", "-p", json.dumps(body))
    try:
        release.run("upgrade", "boardlet", CHART, "--set", "settings.log_level=debug", "--wait=hookOnly")
        assert release.root_key() == both
        release.run("rollback", "boardlet", str(revision), "--wait=hookOnly")
        assert release.setting("BOARDLET_LOG_LEVEL") is None
        assert release.root_key() == both
    finally:
        back = json.dumps({"data": before})
        release.cluster.run("patch", "secret", "boardlet-site", "--type=merge", "-p", back)


def test_upgrade_updates_the_kinds(release: Release, tmp_path: Path) -> None:
    """A chart with a newer kind changes the kind, which Helm does not do for a chart's folder crds/."""
    release.run("package", CHART, "-d", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    path = tmp_path / "boardlet/files/kinds/boardmodels.yaml"
    kinds = [document for document in yaml.safe_load_all(path.read_text()) if document]
    schema = kinds[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["novelty"] = {"type": "string", "maxLength": 8}
    path.write_text(yaml.safe_dump_all(kinds))
    release.run("upgrade", "boardlet", tmp_path / "boardlet", "--wait=hookOnly")
    served = release.cluster.get("crd", "boardmodels.boardlet.dev")["spec"]["versions"][0]["schema"]
    assert "novelty" in served["openAPIV3Schema"]["properties"]["spec"]["properties"]
    release.run("upgrade", "boardlet", CHART, "--wait=hookOnly")
    shutil.rmtree(tmp_path / "boardlet")


def test_a_lost_root_key_stops_an_upgrade(release: Release) -> None:
    """Where the Secret with the root key is gone, an upgrade makes no new one behind the operator's back."""
    before = release.cluster.get("secret", "boardlet-site")
    release.cluster.run("delete", "secret", "boardlet-site")
    try:
        done = release.run("upgrade", "boardlet", CHART, check=False)
        assert done.returncode != 0
        assert "restore it, or set secrets.renew=true" in done.stderr
        assert release.cluster.find("secret", "boardlet-site") is None
    finally:
        for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
            before["metadata"].pop(field, None)
        release.cluster.run("create", "-f", "-", stdin=json.dumps(before))


def test_what_is_there_by_hand_can_be_taken_over(release: Release) -> None:
    """A key that other tools put into the Secret (a site's Wi-Fi password) outlives an upgrade."""
    data = base64.b64encode(b"hidden").decode()
    patch = json.dumps({"data": {"wifi-password": data}})
    release.cluster.run("patch", "secret", "boardlet-site", "--type=merge", "-p", patch)
    release.run("upgrade", "boardlet", CHART, "--wait=hookOnly")
    assert release.cluster.get("secret", "boardlet-site")["data"]["wifi-password"] == data


def test_nothing_drifts(release: Release) -> None:
    """What stands in the cluster is what the chart says: a server-side dry run finds nothing to change."""
    manifest = release.run("get", "manifest", "boardlet").stdout
    done = release.cluster.run("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest, check=False)
    assert done.returncode in (0, 1), done.stderr  # more is an error of diff itself
    changed = [line for line in done.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert [line for line in changed if "generation:" not in line] == []
