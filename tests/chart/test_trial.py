"""`helm test`'s main job, with the rights that the chart gives it, at a real API server, bridge and broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.site import Site
from controlplane import ControlPlane

ACCOUNT = "boardlet-bridge-test"
NAME = "boardlet-test"
TRIAL_S = 120


class Trial:
    """What the chart's test pod runs, as its account."""

    def __init__(self, objects: list[dict[str, Any]], plane: ControlPlane, cluster: Cluster) -> None:
        self.namespace = str(cluster.namespace)
        self.rights = [o for o in objects if o["kind"] in ("Role", "RoleBinding") and o["metadata"]["name"] == ACCOUNT]
        cluster.run("apply", "-f", "-", stdin=yaml.safe_dump_all(self.rights))
        self.kubeconfig = plane.add_user(f"system:serviceaccount:{self.namespace}:{ACCOUNT}")
        (pod,) = (o for o in objects if o["kind"] == "Pod")
        self.arguments = {a.partition("=")[0]: a for a in pod["spec"]["containers"][0]["args"]}

    def run(self, site: Site, **more: str) -> subprocess.CompletedProcess[str]:
        """Run it against a site; `more` replaces arguments."""
        own = {"ready": f"http://127.0.0.1:{site.bridge.port}/readyz", "broker": "127.0.0.1"}
        own |= {"port": str(site.broker.board_port), "root-key": str(site.folder / "root.key")}
        own |= {"kubeconfig": str(self.kubeconfig), **more}
        arguments = self.arguments | {f"--{name}": f"--{name}={value}" for name, value in own.items()}
        command = [sys.executable, "-m", "fleet.trial", *arguments.values()]
        return subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_S, check=False)


@pytest.fixture
def trial(helm: Any, plane: ControlPlane, cluster: Cluster) -> Trial:
    return Trial(helm.render(namespace=str(cluster.namespace)), plane, cluster)


def test_it_runs_the_main_job_and_leaves_nothing(
    trial: Trial, make_site: Callable[..., Site], cluster: Cluster
) -> None:
    """A Board, Ready; an edit, on the board and in the status; then none of it is there, twice over."""
    site = make_site(credentials=True)
    for _ in range(2):
        done = trial.run(site)
        assert done.returncode == 0, done.stdout + done.stderr
        for line in ("the bridge is ready", "is Ready: ", "an edit reached the board", "are gone: "):
            assert line in done.stdout
        assert cluster.run("get", "boards,boardmodels", "-o", "name").stdout == ""


def test_its_account_may_have_its_two_objects_and_no_more(trial: Trial, plane: ControlPlane, cluster: Cluster) -> None:
    """With the test's token nobody sees, edits or deletes another Board, or reads a Secret, or leaves the namespace."""
    own = Cluster(cluster.kubectl, plane.kubectl_env(f"system:serviceaccount:{trial.namespace}:{ACCOUNT}"))
    where = ("-n", trial.namespace)
    assert own.run("auth", "can-i", "delete", f"boards/{NAME}", *where).stdout.strip() == "yes"
    assert own.run("auth", "can-i", "create", "boardmodels", *where).stdout.strip() == "yes"
    for verb, what in (("delete", "boards/other"), ("list", "boards"), ("patch", "boards/other"), ("get", "secrets")):
        with pytest.raises(KubectlFailed, match="no"):
            own.run("auth", "can-i", verb, what, *where)
    with pytest.raises(KubectlFailed, match="no"):
        own.run("auth", "can-i", "create", "boards", "-n", "default")


def test_a_failure_names_the_cause_and_cleans_up(
    trial: Trial, make_site: Callable[..., Site], cluster: Cluster
) -> None:
    """A broker that refuses the board ends the test with what the Board and the broker said, and leaves nothing."""
    site = make_site(credentials=True)
    wrong = site.folder / "wrong.key"
    wrong.write_text(bytes(32).hex())
    done = trial.run(site, **{"root-key": str(wrong), "step-s": "6"})
    assert done.returncode == 1, done.stdout
    said = done.stdout.splitlines()[-2]
    assert said.startswith(f"FAILED: board {NAME} did not become Ready in 6 s: ")
    assert "Ready=Unknown" in said
    assert "it refuses this login (CONNACK " in said
    assert cluster.run("get", "boards,boardmodels", "-o", "name").stdout == ""


def test_a_bridge_that_is_not_ready_is_told_first(trial: Trial, make_site: Callable[..., Site]) -> None:
    """Without a broker nothing is made: the bridge itself says what it lacks."""
    site = make_site(credentials=True)
    site.broker.stop()
    site.bridge.process.wait_until(lambda: bool(site.bridge.parts().get("broker")))
    done = trial.run(site)
    assert done.returncode == 1
    assert "FAILED: the bridge is not ready: " in done.stdout
    assert json.loads(done.stdout.partition("not ready: ")[2].splitlines()[0])["parts"]["broker"]
