"""The bundled broker in a pod of its own: what an upgrade leaves alone, who reaches whom, two brokers on one volume.

The official image's programs are busybox'; here they are Debian's, and inotifyd is toybox': the same interface.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import broker as brokers
import pytest
import yaml
from boardlet_bridge.mqtt.credential import UsersFile, acl, hashed
from fakes.login import Login, logs_in, until
from paho.mqtt import publish, subscribe
from provision import debs
from provision.missing import Missing
from provision.process import Process, free_port

ROOT = Path(__file__).parents[2]
CHART = ROOT / "bridge/chart"
BOTH = pytest.mark.parametrize("own", [True, False], ids=["own pod", "one pod"])
SECRET = "for-all-three"  # noqa: S105 - of this test's broker
BRIDGE, BOARD, OTHER = "boardlet-bridge", "k7m2q9xa", "p4w8z1vc"


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def manifests(text: str) -> dict[str, str]:
    """What Helm wrote of each Deployment's pods, byte by byte, by the Deployment's name."""
    parts = [part for part in text.split("\n---\n") if "\nkind: Deployment\n" in part]
    return {yaml.safe_load(part)["metadata"]["name"]: part.partition("\n  template:\n")[2] for part in parts}


@pytest.mark.parametrize(
    ("values", "left_alone"),
    [
        ({}, True),
        ({"image": {"tag": "9.9.9"}, "settings": {"log_level": "debug"}, "podAnnotations": {"a": "b"}}, True),
        ({"resources": {"limits": {"memory": "1Gi"}}, "metrics": {"dashboard": {"enabled": True}}}, True),
        ({"settings": {"enrollment_namespace": "north"}, "namespaces": ["north"]}, True),
        ({"broker": {"maxPacketBytes": 32768}}, False),
        ({"broker": {"image": {"tag": "2.0.22"}}}, False),
    ],
)
def test_an_upgrade_of_the_bridge_leaves_the_brokers_pod(
    helm: Any, tmp_path: Path, values: dict[str, Any], left_alone: bool
) -> None:
    """Another version of the chart, image or settings makes another bridge's pod; the broker's is the same to the byte.

    Only what is the broker's own replaces it.
    """
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    helm.run("package", CHART, "-d", tmp_path, "--version", "9.9.9", "--app-version", "9.9.9")
    before = manifests(helm.run("template", "boardlet", CHART).stdout)
    after = manifests(helm.run("template", "boardlet", tmp_path / "boardlet-9.9.9.tgz", "-f", path).stdout)
    assert set(before) == set(after) == {"boardlet-bridge", "boardlet-broker"}
    assert before["boardlet-bridge"] != after["boardlet-bridge"]
    assert (before["boardlet-broker"] == after["boardlet-broker"]) is left_alone
    assert "9.9.9" not in after["boardlet-broker"]


@BOTH
def test_each_selector_means_one_pod(helm: Any, own: bool) -> None:
    """Every Service, policy and budget selects the pod that it is for, and no other; so does each Deployment."""
    objects = helm.render("--set", f"broker.ownPod={str(own).lower()}")
    labels = {name: o["spec"]["template"]["metadata"]["labels"] for name, o in named(objects, "Deployment").items()}
    assert set(labels) == ({"boardlet-bridge", "boardlet-broker"} if own else {"boardlet-bridge"})

    def selected(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    holder = "boardlet-broker" if own else "boardlet-bridge"
    for name, made in named(objects, "Deployment").items():
        assert selected(made["spec"]["selector"]["matchLabels"]) == {name}
    services = {name: selected(o["spec"]["selector"]) for name, o in named(objects, "Service").items()}
    inside = {"boardlet-broker-inside": {holder}} if own else {}
    assert services == {"boardlet-bridge": {"boardlet-bridge"}, "boardlet-broker": {holder}} | inside
    policies = named(objects, "NetworkPolicy")
    assert {name: selected(o["spec"]["podSelector"]["matchLabels"]) for name, o in policies.items()} == {
        name: {name} for name in labels
    }
    (budget,) = named(objects, "PodDisruptionBudget").values()
    assert selected(budget["spec"]["selector"]["matchLabels"]) == {"boardlet-bridge"}


def test_only_the_bridge_reaches_its_own_port(helm: Any) -> None:
    """Port 1884 is on no node and no load balancer, and open to the bridge's pod alone; boards' ports are as asked."""
    peers = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    objects = helm.render("-f", ROOT / "tests/chart/values/tls.yaml")
    services, policies = named(objects, "Service"), named(objects, "NetworkPolicy")
    inside = services["boardlet-broker-inside"]["spec"]
    assert (inside.get("type", "ClusterIP"), [p["port"] for p in inside["ports"]]) == ("ClusterIP", [1884])
    assert [p["port"] for p in services["boardlet-broker"]["spec"]["ports"]] == [1883, 8883, 8884]
    boards, bridge = policies["boardlet-broker"]["spec"]["ingress"]
    assert [p["port"] for p in boards["ports"]] == [1883, 8883, 8884]
    assert boards["from"][:1] == peers
    assert [p["port"] for p in bridge["ports"]] == [1884]
    bridges = named(objects, "Deployment")["boardlet-bridge"]["spec"]["selector"]
    assert bridge["from"] == [{"podSelector": bridges}]
    assert policies["boardlet-broker"]["spec"].get("egress", []) == []
    assert "Egress" in policies["boardlet-broker"]["spec"]["policyTypes"]
    ports = {p["port"] for rule in policies["boardlet-bridge"]["spec"]["ingress"] for p in rule["ports"]}
    assert ports == {8080}
    egress = policies["boardlet-bridge"]["spec"]["egress"]
    to = [rule["to"] for rule in egress if rule["ports"] == [{"protocol": "TCP", "port": 1884}]]
    assert to == [[{"podSelector": named(objects, "Deployment")["boardlet-broker"]["spec"]["selector"]}]]


@BOTH
def test_a_broker_is_ready_when_it_lets_in(helm: Any, own: bool) -> None:
    """A broker that waits for its volume is not Ready and not killed for it; its Services lead there all the same."""
    objects = helm.render("--set", f"broker.ownPod={str(own).lower()}")
    made = named(objects, "Deployment")["boardlet-broker" if own else "boardlet-bridge"]["spec"]["template"]["spec"]
    (broker,) = (container for container in made["containers"] if container["name"] == "broker")
    startup, live = broker["startupProbe"], broker["livenessProbe"]
    assert startup["tcpSocket"] == live["tcpSocket"] == {"port": "mqtt"}
    assert startup["periodSeconds"] * startup["failureThreshold"] > made["terminationGracePeriodSeconds"] * 5
    services = [o["spec"] for name, o in named(objects, "Service").items() if "broker" in name]
    assert [service["publishNotReadyAddresses"] for service in services] == [True] * (2 if own else 1)


def test_both_pods_have_one_volume_on_one_node(helm: Any, tmp_path: Path) -> None:
    """The bridge is scheduled to the broker's node, beside what the user asks; volume, group and label are the same."""
    asked = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
    path = tmp_path / "values.yaml"
    terms = {"requiredDuringSchedulingIgnoredDuringExecution": [asked]}
    path.write_text(yaml.safe_dump({"affinity": {"podAffinity": terms}, "nodeSelector": {"site": "north"}}))
    made = {name: o["spec"] for name, o in named(helm.render("-f", path), "Deployment").items()}
    pods = {name: spec["template"]["spec"] for name, spec in made.items()}
    bridge, broker = pods["boardlet-bridge"], pods["boardlet-broker"]
    own = {"topologyKey": "kubernetes.io/hostname", "labelSelector": made["boardlet-broker"]["selector"]}
    wanted = bridge["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert wanted == [asked, own]
    theirs = broker["affinity"]["podAffinity"]
    assert theirs["requiredDuringSchedulingIgnoredDuringExecution"] == [asked]
    (preferred,) = theirs["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"] == {**own, "labelSelector": made["boardlet-bridge"]["selector"]}
    assert bridge["nodeSelector"] == broker["nodeSelector"] == {"site": "north"}
    assert bridge["securityContext"] == broker["securityContext"]
    claims = [{v["name"]: v.get("persistentVolumeClaim") for v in pod["volumes"]}["broker"] for pod in pods.values()]
    assert claims == [{"claimName": "boardlet-broker"}] * 2
    mounts = [m for pod in pods.values() for m in pod["containers"][0]["volumeMounts"] if m["name"] == "broker"]
    assert mounts == [{"name": "broker", "mountPath": "/var/lib/boardlet"}] * 2


class Bundled:
    """The chart's broker as processes: its two files, with this machine's paths and ports, on one volume."""

    def __init__(self, files: dict[str, str], folder: Path, program: brokers.Programs) -> None:
        self.files, self.folder, self._program = files, folder, program.program
        self.state = folder / "state"
        self.state.mkdir()
        self.processes: list[Process] = []

    def pod(self, programs: Path | None = None) -> tuple[Process, int]:
        """Another pod's broker, not started yet, and its port for the bridge; `programs` are in its image, too."""
        folder = self.folder / f"pod{len(self.processes)}"
        folder.mkdir()
        inside = free_port()
        for name, text in self.files.items():
            for was, now in (
                ("/tmp/", f"{folder}/"),  # noqa: S108 - the container's own; first, as ours may be below it
                ("listener 1884", f"listener {inside} 127.0.0.1"),
                ("listener 1883", f"listener {free_port()} 127.0.0.1"),
                ("/var/lib/boardlet", str(self.state)),
                ("/etc/boardlet", str(folder)),
            ):
                text = text.replace(was, now)
            (folder / name).write_text(text + ("user root\n" if name.endswith(".conf") and os.geteuid() == 0 else ""))
        path = [*([programs] if programs else []), self._program.path.parent, os.environ["PATH"]]
        env = {**self._program.env, "PATH": os.pathsep.join(map(str, path))}
        process = Process("broker", ["sh", folder / "start"], log=folder / "broker.log", env=env, cwd=folder)
        self.processes.append(process)
        return process, inside


@pytest.fixture
def bundled(helm: Any, broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[Bundled]:
    if broker_programs.name != "mosquitto":
        pytest.skip("the chart's broker is mosquitto")
    files = named(helm.render(), "ConfigMap")["boardlet-broker"]["data"]
    made = Bundled(files, tmp_path, broker_programs)
    (made.state / "users").write_text("".join(f"{user}:{hashed(SECRET)}\n" for user in (BRIDGE, BOARD, OTHER)))
    (made.state / "acl").write_text(acl(BRIDGE))
    yield made
    for process in made.processes:
        process.stop()
        print(process.log.read_text(errors="replace")[-2000:] if process.log.exists() else "")


def answers(process: Process, port: int) -> None:
    """Wait until the broker lets in."""

    def lets_in() -> bool:
        try:
            with Login(port, BRIDGE, SECRET) as login:
                return login.up
        except ConnectionRefusedError:
            return False

    process.wait_until(lets_in)


def group(process: Process) -> list[str]:
    """The names of what runs in its group, it and all that it has started; some may end while this is read."""
    names = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            before, _, after = stat.read_text().rpartition(") ")
            if int(after.split()[2]) == process.pid:
                names.append(before.partition("(")[2])
    return names


@pytest.fixture(scope="module")
def inotifyd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that program."""
    try:
        program = debs.installed("toybox") or debs.program("toybox")
    except Missing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("programs")
    (folder / "inotifyd").symlink_to(program.path)
    return folder


@pytest.mark.parametrize("watched", [True, False], ids=["inotifyd", "without"])
def test_logins_are_read_when_they_change(bundled: Bundled, request: pytest.FixtureRequest, watched: bool) -> None:
    """Who is let in or taken out while the broker runs is let in or thrown off, others stay: by the change itself.

    Where an image has no inotifyd its files are looked at instead, and its log says so.
    """
    process, port = bundled.pod(request.getfixturevalue("inotifyd") if watched else None)
    process.start()
    answers(process, port)
    known, users = {BRIDGE: SECRET, BOARD: SECRET, OTHER: SECRET}, UsersFile(bundled.state / "users")
    users.write(known)  # what stood there was nobody's
    with Login(port, OTHER, SECRET) as other:
        for _ in range(2):
            users.write({user: secret for user, secret in known.items() if user != BOARD})
            assert until(lambda: not logs_in(port, BOARD, SECRET))
            users.write(known)
            assert until(lambda: logs_in(port, BOARD, SECRET))
        assert not other.gone
    names = group(process)
    assert "mosquitto" in names
    assert ("sleep" not in names) is watched
    assert ("once a second" not in process.log.read_text()) is watched


def test_a_file_that_cannot_be_read_ends_nothing(bundled: Bundled, inotifyd: Path) -> None:
    """What cannot be copied is told, those who are in stay in; when it is mended, the next change is read as ever."""
    process, port = bundled.pod(inotifyd)
    process.start()
    answers(process, port)
    users = bundled.state / "users"
    users.rename(users.with_name("aside"))
    users.mkdir()  # a root's test has no file that it may not read
    assert until(lambda: "cat: users:" in process.log.read_text())
    assert logs_in(port, BOARD, SECRET)
    users.rmdir()
    (bundled.state / "new").write_text(f"{BRIDGE}:{hashed(SECRET)}\n")
    (bundled.state / "new").rename(users)
    assert until(lambda: not logs_in(port, BOARD, SECRET))
    assert logs_in(port, BRIDGE, SECRET)


def test_a_second_broker_waits_for_the_first(bundled: Bundled) -> None:
    """Of two pods on one volume, as when one is replaced, the later opens no port until the other has kept its all.

    So the mailbox that the first was given last is there at the second.
    """
    (first, port), (second, later) = bundled.pod(), bundled.pod()
    first.start()
    answers(first, port)
    second.start()
    assert until(lambda: "another broker has this volume" in second.log.read_text() and "flock" in group(second))
    topic, auth = f"b/00/{BOARD}/d", {"username": BRIDGE, "password": SECRET}
    publish.single(topic, b"last", 1, retain=True, hostname="127.0.0.1", port=port, auth=auth)
    with pytest.raises(ConnectionRefusedError):
        Login(later, BRIDGE, SECRET)
    first.stop()
    answers(second, later)
    mailbox = subscribe.simple(topic, 1, hostname="127.0.0.1", port=later, auth=auth)
    assert (mailbox.payload, mailbox.retain) == (b"last", True)


def test_the_bridges_port_ties_a_client_id_to_its_user(bundled: Bundled) -> None:
    """Where no policy keeps a pod with a board's password from port 1884, it throws off neither bridge nor board."""
    process, port = bundled.pod()
    process.start()
    answers(process, port)
    with Login(port, BRIDGE, SECRET) as bridge, Login(port, OTHER, SECRET) as other:
        for taken in (BRIDGE, OTHER):
            with Login(port, BOARD, SECRET, taken) as thief:
                assert thief.up
                assert not thief.gone
        with Login(port, OTHER, SECRET):  # his own, whom it does replace: by now the others would be gone, too
            assert until(lambda: other.gone)
        assert not bridge.gone
