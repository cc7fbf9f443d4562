"""The chart on a whole node: kubelet, containerd, kube-proxy and DNS, the control plane elsewhere, boards outside.

`make node` runs it, `make test` does not: the node's programs take minutes to build once, and then this takes four. The
tests are one story, in their order.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import controlplane
import helm
import node as nodes
import pytest
from boardlet_cli.cluster import SYSTEM, Cluster
from boardlet_wire.keys import board_key
from provision.missing import Missing
from provision.progress import for_stream
from told import told
from virtualboard import VirtualBoard
from waiting import hold_on

ROOT = Path(__file__).parents[2]
CHART = ROOT / "bridge/chart"
BOARDS = {"g1": "k7m2q9xa", "g2": "p4w8z1vc"}
LED = 2
NODE_PORT = 31883
BROKER = "boardlet-broker"
WAIT_S = 90.0
HELM_S = 240
EDITOR = "sed -i 's/led: true/led: false/'"


@dataclass
class Site:
    """The release `boardlet` on the node, and boards outside of the cluster."""

    node: nodes.Node
    cluster: Cluster
    system: Cluster
    images: dict[str, str]
    boards: dict[str, VirtualBoard] = field(default_factory=dict)

    def helm(self, *arguments: str | Path, check: bool = True) -> str:
        """Run Helm as an admin where the control plane is."""
        program = helm.find(for_stream())
        command = [*self.node.cloud.net, program, *arguments, "-n", SYSTEM]
        own = {f"HELM_{kind}_HOME": str(self.node.folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        env = {**self.node.plane.kubectl_env(), **own}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HELM_S, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def install(self, verb: str, *more: str, chart: Path = CHART) -> None:
        """Install or upgrade, and wait until the pods are ready."""
        values = {
            "image.repository": self.images["bridge"].rpartition(":")[0],
            "image.tag": self.images["bridge"].rpartition(":")[2],
            "broker.image.repository": self.images["broker"].rpartition(":")[0],
            "broker.image.tag": self.images["broker"].rpartition(":")[2],
            "broker.service.type": "NodePort",
            "broker.service.nodePort": str(NODE_PORT),
        }
        settings = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
        self.helm(verb, "boardlet", chart, *settings, *more, "--wait", "--timeout=180s")

    def pod(self, name: str = "boardlet") -> dict[str, Any]:
        """The one pod of the bridge, or of what else has this name."""
        selector = f"app.kubernetes.io/name={name}"
        (pod,) = json.loads(self.system.run("get", "pods", "-l", selector, "-o", "json").stdout)["items"]
        made: dict[str, Any] = pod
        return made

    def pods(self) -> dict[str, tuple[str, int]]:
        """Each container's pod, and how often it was restarted there."""
        pods = (self.pod(), self.pod(BROKER))
        return {
            c["name"]: (pod["metadata"]["uid"], c["restartCount"])
            for pod in pods
            for c in pod["status"]["containerStatuses"]
        }

    def bridge_process(self) -> int:
        """The number of the bridge's process, as this machine sees it."""
        for procs in self.node.cgroup.folders[0].glob("**/cgroup.procs"):
            for pid in procs.read_text().split():
                if b"boardlet_bridge" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        raise AssertionError("there is none")

    def edit(self, name: str, led: bool) -> int:
        """Patch a Board; returns its generation."""
        patch = json.dumps({"spec": {"properties": {"led": led}}})
        self.cluster.run("patch", "board", name, "--type=merge", "-p", patch)
        return int(self.cluster.get("board", name)["metadata"]["generation"])

    def edit_meanwhile(self, replace: Callable[[], object], name: str, led: bool) -> int:
        """Have the bridge's pod replaced, and patch a Board when there is none; returns its generation."""
        pod = self.pod()["metadata"]["name"]
        with ThreadPoolExecutor(1) as pool:
            replaced = pool.submit(replace)
            self.system.run("wait", "--for=delete", f"pod/{pod}", "--timeout=60s")
            generation = self.edit(name, led)
            replaced.result()
        return generation

    def since(self, name: str, condition: str) -> tuple[str, str]:
        """What a condition of a Board says, and since when."""
        conditions = {c["type"]: c for c in self.cluster.get("board", name)["status"]["conditions"]}
        return conditions[condition]["status"], conditions[condition]["lastTransitionTime"]

    def env(self) -> dict[str, str]:
        return {e["name"]: e["value"] for e in self.pod()["spec"]["containers"][0]["env"]}

    def synced(self, name: str, generation: int, led: bool) -> None:
        """Wait until the board itself has said that it runs this generation; its pin says the same."""

        def true(obj: dict[str, Any]) -> bool:
            ready = next((c for c in obj.get("status", {}).get("conditions", ()) if c["type"] == "Ready"), None)
            return bool(ready and ready["status"] == "True" and obj["status"].get("observedGeneration") == generation)

        self.cluster.until("board", name, true, WAIT_S)
        assert self.boards[name].pin(LED) == int(led)

    def broker_log(self) -> list[str]:
        """What the broker's pods have said, line by line, as it is on the node: no cluster is asked."""
        logs = (self.node.folder / "pod-logs").glob(f"{SYSTEM}_{BROKER}-*/broker/*.log")
        return [line for log in logs for line in log.read_text().splitlines()]

    def connects(self, beginning: str) -> int:
        """How often the broker let in a board whose id begins so."""
        return sum(f" as {beginning}" in line for line in self.broker_log())

    def all_connects(self) -> dict[str, int]:
        return {name: self.connects(board_id) for name, board_id in BOARDS.items()}


@pytest.fixture(scope="module")
def site(engine: Any, image: str, broker_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        programs, kubernetes = nodes.find(for_stream()), controlplane.find(for_stream())
        helm.find(for_stream())
    except Missing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("node")
    archive = folder / "images.tar"
    names = {"bridge": f"localhost/{image}", "broker": f"localhost/{broker_image}"}
    engine.run("save", "--quiet", "--multi-image-archive", "-o", archive, *names.values(), timeout_s=300)
    node = nodes.Node(folder, programs, kubernetes)
    try:
        with told("control plane up, node Ready, its Services answer"):
            node.start()
        with told("the two images imported"):
            node.import_image(archive)
        archive.unlink()
        for number in (1, 2, 3):
            node.plane.kubectl("create", "-f", "-", stdin=volume(node, number))
        kubectl, env = node.plane.programs.kubectl, node.plane.kubectl_env()
        made = Site(node, Cluster(kubectl, env, namespace="default"), Cluster(kubectl, env, namespace=SYSTEM), names)
        yield made
        for board in made.boards.values():
            board.kill()
    finally:
        shown = ("get", "pods,events", "-A", "-o", "wide")
        if hasattr(node, "plane"):
            print(node.plane.kubectl(*shown, "--request-timeout=5s", check=False).stdout[-6000:])
        print(node.log())
        node.stop()


def volume(node: nodes.Node, number: int) -> str:
    """A volume of the node's own disk: the first local, which the kubelet gives to the pods' group.

    The others are as k3s' local-path makes one: everybody may write there, and it stays root's.
    """
    path = node.folder / f"volume{number}"
    path.mkdir()
    source: dict[str, Any] = {"local": {"path": str(path)}}
    if number > 1:
        path.chmod(0o777)
        source = {"hostPath": {"path": str(path), "type": "Directory"}}
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
    spec = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"],
        **source,
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
    }
    body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"local-{number}"}, "spec": spec}
    return json.dumps(body)


@pytest.mark.timeout(900)
def test_installed_and_boards_outside_are_ready(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One `helm install --wait`; then boards that reach the node alone are Ready through the broker's Service."""
    with told("helm install --wait, the pods Ready"):
        site.install("install", "--create-namespace")
    assert all(c["ready"] for name in ("boardlet", BROKER) for c in site.pod(name)["status"]["containerStatuses"])
    root = bytes.fromhex(base64.b64decode(site.system.get("secret", "boardlet-site")["data"]["root.key"]).decode())
    site.cluster.run("apply", "-f", str(ROOT / "crds/samples/greenhouse.yaml"))
    for name, board_id in BOARDS.items():
        body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": name}}
        body["spec"] = {"boardID": board_id, "modelRef": {"name": "greenhouse"}, "properties": {"led": True}}
        site.cluster.run("create", "-f", "-", stdin=json.dumps(body))
        config = {"id": board_id, "key": board_key(root, board_id, 1).hex(), "key_number": 1, "proven_s": 1}
        config |= {"stable_s": 1, "host": site.node.address, "port": NODE_PORT}
        folder = tmp_path_factory.mktemp(name)
        site.boards[name] = VirtualBoard(folder, config, within=site.node.field.net)
    with told("two boards powered on, both Ready"):
        for board in site.boards.values():
            board.start()
        for name in BOARDS:
            site.synced(name, 1, led=True)
    # Their logins, which the other pod wrote, were told by inotify.
    assert not [line for line in site.broker_log() if "once a second" in line]


def test_kubectl_edit_reaches_the_board(site: Site) -> None:
    """`kubectl edit` of the object switches the pin, and the board's word of it comes back."""
    env = {**site.cluster.env, "KUBE_EDITOR": EDITOR}
    with told("kubectl edit, the board Ready at the new generation"):
        Cluster(site.cluster.kubectl, env, namespace="default").run("edit", "board", "g1")
        site.synced("g1", 2, led=False)


def test_helm_test_runs_the_main_job_and_leaves_nothing(site: Site) -> None:
    """`helm test` makes a Board, edits it, reads its status, all in a pod with rights of its own, and cleans up."""
    let_in = site.connects("test")
    with told("helm test"):
        assert "Succeeded" in site.helm("test", "boardlet", "--timeout=120s")
    assert site.connects("test") > let_in
    for kind in ("boards,boardmodels", "serviceaccounts", "roles,rolebindings", "pods"):
        left = site.system.run("get", kind, "-o", "name").stdout
        assert "-test" not in left


def test_a_killed_pod_comes_back(site: Site) -> None:
    """Pods that are deleted at once, and a bridge whose process is killed: all edits of the meantime arrive."""
    for name in ("boardlet", BROKER):
        before = site.pods()
        pod = site.pod(name)["metadata"]["name"]
        with told(f"pod {pod.rsplit('-', 2)[0]} deleted without grace, an edit, its board Ready at it"):
            site.system.run("delete", "pod", pod, "--grace-period=0", "--force")
            led = name == "boardlet"
            site.synced("g1", site.edit("g1", led=led), led=led)
        changed = {which for which, was in before.items() if site.pods()[which] != was}
        assert changed == {"bridge" if name == "boardlet" else "broker"}
    site.synced("g1", site.edit("g1", led=True), led=True)
    before = site.pods()
    pod = site.pod()["metadata"]["name"]
    with told("the bridge's process killed, an edit, its board Ready at it"):
        os.kill(site.bridge_process(), signal.SIGKILL)
        site.synced("g2", site.edit("g2", led=False), led=False)
    site.system.run("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")
    uid, restarts = before["bridge"]
    assert site.pods() == {**before, "bridge": (uid, restarts + 1)}


@pytest.mark.timeout(300)
def test_the_site_goes_on_without_its_control_plane(site: Site) -> None:
    """The cable to the control plane is pulled: boards keep their broker, power cuts too; healed, all edits arrive."""
    before = site.pods()
    site.node.cut()
    try:
        generations = {name: site.edit(name, led=name == "g2") for name in BOARDS}
        with told("the cluster has noticed that the node is gone"):
            site.node.plane.kubectl("wait", "--for=condition=Ready=Unknown", f"node/{site.node.name}", "--timeout=120s")
        let_in = site.connects(BOARDS["g1"])
        site.boards["g1"].kill()
        site.boards["g1"].start()
        hold_on(lambda: site.connects(BOARDS["g1"]) > let_in, WAIT_S)
        assert site.boards["g1"].pin(LED) == 1  # as it was before the cut: no edit of the meantime can have come
        assert site.boards["g2"].pin(LED) == 0
    finally:
        site.node.heal()
    with told("healed, both boards Ready at what was edited meanwhile"):
        for name, generation in generations.items():
            site.synced(name, generation, led=name == "g2")
    site.system.run("wait", "--for=condition=Ready", f"pod/{site.pod()['metadata']['name']}", "--timeout=90s")
    assert site.pods() == before


@pytest.mark.timeout(400)
def test_upgraded_and_rolled_back(site: Site, tmp_path: Path) -> None:
    """Through an upgrade to another chart and image, and a rollback, boards stay connected and their statuses true.

    The broker's pod is the same and lets nobody in anew, conditions of boards that nobody edits are not touched, and
    one that is edited while there is no bridge is Ready at that.
    """
    before, let_in = site.pods(), site.all_connects()
    connected, ready = {name: site.since(name, "Connected") for name in BOARDS}, site.since("g2", "Ready")
    site.helm("package", CHART, "-d", tmp_path, "--version", "0.2.0", "--app-version", "0.2.0")
    newer = tmp_path / "boardlet-0.2.0.tgz"

    def undisturbed() -> bool:
        same = {name: site.since(name, "Connected") for name in BOARDS} == connected
        return same and (site.pods()["broker"], site.all_connects()) == (before["broker"], let_in)

    with told("helm upgrade --wait, and a board Ready at an edit from before the new pod was there"):
        debug = ("--set", "settings.log_level=debug")
        generation = site.edit_meanwhile(lambda: site.install("upgrade", *debug, chart=newer), "g1", led=False)
        site.synced("g1", generation, led=False)
    assert site.pod()["metadata"]["labels"]["helm.sh/chart"] == "boardlet-0.2.0"
    assert site.env()["BOARDLET_LOG_LEVEL"] == "debug"
    assert undisturbed()
    with told("helm rollback --wait, likewise"):
        back = ("rollback", "boardlet", "1", "--wait", "--timeout=180s")
        site.synced("g1", site.edit_meanwhile(lambda: site.helm(*back), "g1", led=True), led=True)
    assert "BOARDLET_LOG_LEVEL" not in site.env()
    assert undisturbed()
    assert site.since("g2", "Ready") == ready
    assert site.pods()["bridge"] != before["bridge"]


@pytest.mark.timeout(400)
def test_from_one_pod_to_two_and_back(site: Site) -> None:
    """A site with one pod of both, as earlier charts made it, goes over to two on the same volume; logins are kept."""
    with told("helm upgrade --wait to one pod, and a board Ready at an edit after it"):
        site.install("upgrade", "--set", "broker.ownPod=false")
        site.synced("g1", site.edit("g1", led=False), led=False)
    assert {c["name"] for c in site.pod()["status"]["containerStatuses"]} == {"bridge", "broker"}
    with told("helm upgrade --wait to two pods, likewise"):
        site.install("upgrade")
        for name in BOARDS:
            site.synced(name, site.edit(name, led=name == "g1"), led=name == "g1")
    assert set(site.pods()) == {"bridge", "broker"}


@pytest.mark.timeout(400)
def test_a_lost_volume_is_replaced(site: Site) -> None:
    """The commands of docs/operations.md, Broker lost, give a new volume; both boards are Ready, not flashed."""
    text = (ROOT / "docs/operations.md").read_text().partition("\n### Broker lost\n")[2].partition("```sh\n")[2]
    commands = [shlex.split(line) for line in text.partition("```")[0].splitlines() if line.strip()]
    assert [command[0] for command in commands] == ["kubectl"] * 3 + ["helm"]
    volume = site.system.get("pvc", BROKER)["spec"]["volumeName"]
    with told("the volume lost, a new one, both boards Ready at an edit"):
        for program, *arguments in commands:
            if program == "kubectl":
                site.system.run(*arguments, timeout_s=WAIT_S)
            else:
                site.helm(*(CHART if part == "bridge/chart" else part for part in arguments))
        for name in BOARDS:
            site.synced(name, site.edit(name, led=name == "g2"), led=name == "g2")
    assert site.system.get("pvc", BROKER)["spec"]["volumeName"] != volume


@pytest.mark.timeout(400)
def test_uninstalled_and_installed_again(site: Site) -> None:
    """Uninstalled, Boards and root key stay and boards work on; installed again, both are Ready without flashing."""
    with told("helm uninstall --wait"):
        site.helm("uninstall", "boardlet", "--wait", "--timeout=120s")
    site.system.run("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/instance=boardlet", "--timeout=60s")
    assert site.system.run("get", "pods,services,deployments", "-o", "name").stdout == ""
    assert [board.pin(LED) for board in site.boards.values()] == [0, 1]
    uids = {name: site.cluster.get("board", name)["metadata"]["uid"] for name in BOARDS}
    with told("helm install --wait again, both boards Ready at an edit"):
        site.install("install")
        for name in BOARDS:
            site.synced(name, site.edit(name, led=name == "g1"), led=name == "g1")
    assert uids == {name: site.cluster.get("board", name)["metadata"]["uid"] for name in BOARDS}
