"""The pods of the chart, container by container: arguments, variables, files, security settings as Helm renders them.

There is no kubelet here: podman gives each container what the manifest says. One thing differs: they are in the host's
network, so the ports are moved to free ones, and no Service leads there.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helm
import pytest
import yaml
from boardlet_cli.cluster import ACCOUNT, SYSTEM, Cluster
from boardlet_wire.keys import board_key
from controlplane import ControlPlane
from provision.missing import Missing
from provision.process import free_port
from provision.progress import for_stream
from virtualboard import VirtualBoard
from waiting import hold_on

ROOT = Path(__file__).parents[2]
BOARD = "k7m2q9xa"
KEY_NUMBER = 1


@dataclass
class Pod:
    """The containers of the rendered Deployments, with their volumes in a folder; one that both have is one."""

    engine: Any
    folder: Path
    objects: list[dict[str, Any]]
    images: dict[str, str]
    variables: dict[str, str]
    port: int = 0
    """Where boards reach the broker."""
    names: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        specs = [o["spec"]["template"]["spec"] for o in self.objects if o["kind"] == "Deployment"]
        volumes = {volume["name"]: volume for spec in specs for volume in spec["volumes"]}
        containers = [container for spec in specs for container in spec["containers"]]
        return {**specs[0], "containers": containers, "volumes": [*volumes.values()]}

    def volume(self, name: str) -> Path:
        return self.folder / "volumes" / name

    def lay(self, account: dict[str, str]) -> None:
        """Fill the volumes as a kubelet does: owned by the pod's group, secrets readable by it alone."""
        named = {(o["kind"], o["metadata"]["name"]): o for o in self.objects}
        group = self.spec["securityContext"]["fsGroup"]
        for volume in self.spec["volumes"]:
            place = self.volume(volume["name"])
            place.mkdir(parents=True)
            files: dict[str, str] = account if "projected" in volume else {}
            if "secret" in volume:
                data = named["Secret", volume["secret"]["secretName"]]["data"]
                files = {i["path"]: base64.b64decode(data[i["key"]]).decode() for i in volume["secret"]["items"]}
            if "configMap" in volume:
                files = named["ConfigMap", volume["configMap"]["name"]]["data"]
            for path, content in files.items():
                (place / path).write_text(content)
                os.chown(place / path, 0, group)
                (place / path).chmod(0o644 if "configMap" in volume else 0o440)
            os.chown(place, 0, group)
            place.chmod(0o2775)

    def start(self, which: str) -> str:
        """Run one container as it is written; returns podman's name of it."""
        container = next(c for c in self.spec["containers"] if c["name"] == which)
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        arguments = [
            "--cap-drop",
            "all",
            "--user",
            f"{security['runAsUser']}:{self.spec['securityContext']['runAsGroup']}",
        ]
        arguments += ["--group-add", str(self.spec["securityContext"]["fsGroup"])]
        arguments += ["--read-only", "--read-only-tmpfs=false"] if security["readOnlyRootFilesystem"] else []
        arguments += [] if security["allowPrivilegeEscalation"] else ["--security-opt", "no-new-privileges"]
        for mount in container["volumeMounts"]:
            mode = "ro" if mount.get("readOnly") else "rw"
            arguments += ["-v", f"{self.volume(mount['name'])}:{mount['mountPath']}:{mode}"]
        env = {e["name"]: e["value"] for e in container.get("env", ())}
        if which == "bridge":
            env |= self.variables
        arguments += [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
        command = [*container.get("command", ()), *container.get("args", ())]
        if command:
            arguments += ["--entrypoint", json.dumps(command)]
        name = self.names[which] = f"boardlet-{which}-{uuid.uuid4().hex[:8]}"
        self.engine.run("run", "-d", "--name", name, "--network", "host", *arguments, self.images[which])
        return name

    def end(self) -> None:
        for which, name in self.names.items():
            print(f"--- {which}\n{self.engine.run('logs', name, check=False).stderr[-3000:]}")
            self.engine.run("rm", "--force", "--time", "3", name, check=False)


@pytest.fixture
def pod(
    engine: Any, image: str, broker_image: str, plane: ControlPlane, cluster: Cluster, tmp_path: Path
) -> Iterator[Pod]:
    if os.geteuid() != 0:
        pytest.skip("root: volumes belong to the pod's group")
    try:
        program = helm.find(for_stream())
    except Missing as missing:
        pytest.skip(str(missing))
    port, own, http = free_port(), free_port(), free_port()
    settings = ["--set", f"namespaces={{{cluster.namespace}}}", "--set", "settings.log_level=debug"]
    command = [program, "template", "boardlet", ROOT / "bridge/chart", "-n", SYSTEM, *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    objects = [
        o
        for o in yaml.safe_load_all(
            done.stdout.replace("listener 1883", f"listener {port}").replace("listener 1884", f"listener {own}")
        )
        if o
    ]
    server = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(plane.port)}
    moved = {"BOARDLET_BROKER_HOST": "127.0.0.1", "BOARDLET_BROKER_PORT": str(own), "BOARDLET_HTTP_PORT": str(http)}
    made = Pod(engine, tmp_path, objects, {"bridge": image, "broker": broker_image}, server | moved)
    made.port = port
    token = cluster.run("create", "token", ACCOUNT, "-n", SYSTEM).stdout.strip()
    authority = (plane.folder / "pki/ca.crt").read_text()
    made.lay({"token": token, "ca.crt": authority, "namespace": SYSTEM})
    yield made
    made.end()


@pytest.mark.timeout(900)
def test_the_pod_serves_a_board(pod: Pod, cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """As the chart writes them, broker and bridge make a Board Ready; each ends within its grace, and comes back.

    The bridge lets a board in when its Board is created and throws it off when that is deleted; the root key is not to
    be found in the broker's container; a broker that starts anew has kept mailbox and logins.
    """
    root = bytes.fromhex((pod.volume("site") / "root.key").read_text())
    broker, bridge = pod.start("broker"), pod.start("bridge")
    cluster.run("apply", "-f", str(ROOT / "crds/samples/greenhouse.yaml"))
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "g1"}}
    body["spec"] = {"boardID": BOARD, "modelRef": {"name": "greenhouse"}, "properties": {"led": True}}
    cluster.run("create", "-f", "-", stdin=json.dumps(body))
    key = board_key(root, BOARD, KEY_NUMBER)
    config = {"id": BOARD, "key": key.hex(), "key_number": KEY_NUMBER, "host": "127.0.0.1", "port": pod.port}
    board = VirtualBoard(tmp_path / "board", config)
    request.addfinalizer(board.kill)
    board.start()
    cluster.run("wait", "--for=condition=Ready", "board/g1", "--timeout=60s")
    assert board.pin(2) == 1
    found = pod.engine.run("exec", broker, "find", "/", "-xdev", "-name", "root.key", check=False)
    assert (found.stdout, found.returncode) == ("", 1)  # 1: it may not look everywhere
    who = {name: pod.engine.run("exec", name, "id", "-u").stdout.strip() for name in (broker, bridge)}
    assert (who[broker], who[bridge]) == ("65533", "65532")

    pod.engine.run("stop", "--time", "20", broker)
    assert pod.engine.run("inspect", broker, "--format", "{{.State.ExitCode}}").stdout.strip() == "0"
    cluster.run("wait", "--for=condition=Ready=Unknown", "board/g1", "--timeout=60s")
    pod.engine.run("start", broker)
    cluster.run("wait", "--for=condition=Ready", "board/g1", "--timeout=60s")
    pod.engine.run("stop", "--time", "20", bridge)
    assert pod.engine.run("inspect", bridge, "--format", "{{.State.ExitCode}}").stdout.strip() == "0"
    cluster.run("patch", "board", "g1", "--type=merge", "-p", '{"spec":{"properties":{"led":false}}}')
    pod.engine.run("start", bridge)
    generation = cluster.get("board", "g1")["metadata"]["generation"]
    done: Callable[[dict[str, Any]], bool] = lambda o: o["status"].get("observedGeneration") == generation  # noqa: E731
    cluster.until("board", "g1", done, 60)
    assert board.pin(2) == 0
    users = pod.volume("broker") / "users"
    assert BOARD in users.read_text()
    cluster.run("delete", "board", "g1", "--timeout=30s")
    refused: Callable[[], bool] = lambda: "not authorised" in pod.engine.run("logs", broker).stderr  # noqa: E731
    hold_on(lambda: BOARD not in users.read_text() and refused())
