"""The chart, rendered by Helm and judged by a real API server: schemas, admission, Pod Security."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_bridge.runtime.settings import Settings
from boardlet_cli.cluster import Cluster, KubectlFailed

ROOT = Path(__file__).parents[2]
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
FOREIGN = {"ServiceMonitor", "PrometheusRule"}  # kinds of the Prometheus operator, which the test's cluster lacks
EACH = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def one(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name}: {[(o['kind'], o['metadata']['name']) for o in objects]}"
    return found[0]


def bridge(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The Deployment that the bridge is in."""
    return one(objects, "Deployment", "boardlet-bridge")


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All pods of the chart, by the name of what makes them."""
    made = {o["metadata"]["name"]: o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment"}
    return made | {"test": one(objects, "Pod")["spec"]}


@pytest.fixture
def restricted(cluster: Cluster) -> Cluster:
    """A namespace in which the API server admits only pods of the Pod Security profile restricted."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    cluster.run("label", "namespace", str(cluster.namespace), label)
    return cluster


@EACH
def test_helm_lints_it(helm: Any, values: Path) -> None:
    """Helm finds nothing wrong with the chart, values and schema."""
    helm.run("lint", "--strict", ROOT / "bridge/chart", "-f", values)


@EACH
def test_the_api_server_takes_it(helm: Any, restricted: Cluster, values: Path) -> None:
    """Every object passes the API server's strict validation and admission, as a dry run."""
    objects = helm.render("-f", values, namespace=restricted.namespace)
    assert FOREIGN & {o["kind"] for o in objects} in (set(), FOREIGN)
    known = yaml.safe_dump_all([o for o in objects if o["kind"] not in FOREIGN])
    said = restricted.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=known)
    assert "Warning" not in said.stderr.replace("Warning: resource", ""), said.stderr  # CRDs there without apply's note


@EACH
def test_its_pods_are_restricted(helm: Any, restricted: Cluster, values: Path) -> None:
    """Where Pod Security enforces `restricted` the API server admits the pods, and no pod that may escalate."""
    objects = helm.render("-f", values, namespace=restricted.namespace)
    for name, spec in pods(objects).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        restricted.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(pod))
        spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(KubectlFailed, match="violates PodSecurity"):
            restricted.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


@EACH
def test_every_container_has_the_least(helm: Any, values: Path) -> None:
    """Root is read-only, the account's token is the bridge's alone, bridge and broker are two users."""
    made = pods(helm.render("-f", values))
    made.pop("test")
    for pod in made.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not pod.get("shareProcessNamespace")
    containers = {c["name"]: (c, pod) for pod in made.values() for c in pod["containers"]}
    for container, _ in containers.values():
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]
    mounts = {name: {m["name"] for m in container["volumeMounts"]} for name, (container, _) in containers.items()}
    assert {"site", "account"} <= mounts["bridge"]
    if "broker" in mounts:
        assert not {"site", "account"} & mounts["broker"]
        volumes = {volume["name"]: volume for volume in containers["broker"][1]["volumes"]}
        shown = [volumes[name]["secret"] for name in mounts["broker"] if "secret" in volumes[name]]
        assert "root.key" not in str(shown)
        users = [container["securityContext"]["runAsUser"] for container, _ in containers.values()]
        assert len(set(users)) == 2


@EACH
def test_a_group_comes_with_a_user(helm: Any, values: Path) -> None:
    """No pod names a group without a user: containerd makes no sandbox of such a pod."""
    for spec in pods(helm.render("-f", values)).values():
        assert {"runAsUser", "runAsGroup"} <= set(spec["securityContext"])


@EACH
def test_its_settings_are_settings(helm: Any, values: Path) -> None:
    """Every variable that the chart sets is a setting of the bridge, and the whole is one that it would start with."""
    (container, *_) = bridge(helm.render("-f", values))["spec"]["template"]["spec"]["containers"]
    env = {e["name"].removeprefix("BOARDLET_").lower(): e["value"] for e in container["env"]}
    assert set(env) <= set(Settings.model_fields)
    Settings.model_validate(env)


def test_a_large_number_is_a_number(helm: Any, tmp_path: Path) -> None:
    """A setting that is a number of a values file reaches the bridge as it was written, however large it is."""
    numbers = {"enrollment_claim_number": 20261125, "status_burst": 200, "status_writes_per_s": 0.5, "broker_tls": True}
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({"settings": numbers}))
    pod = bridge(helm.render("-f", path))["spec"]["template"]["spec"]
    env = {e["name"].removeprefix("BOARDLET_").lower(): e["value"] for e in pod["containers"][0]["env"]}
    made = Settings.model_validate(env)
    assert {name: getattr(made, name) for name in numbers} == numbers


@pytest.mark.parametrize(
    ("values", "port"),
    [
        ({}, 1883),
        ({"secret": "broker-tls"}, 1883),
        ({"secret": "broker-tls", "psk": True, "only": True}, 8883),
        ({"psk": True, "only": True}, 8884),
    ],
)
def test_the_node_port_is_one_that_boards_have(helm: Any, tmp_path: Path, values: dict[str, Any], port: int) -> None:
    """broker.service.nodePort is given to exactly one port, also where there is none without TLS."""
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump({"broker": {"tls": values, "service": {"type": "NodePort", "nodePort": 31883}}}))
    ports = one(helm.render("-f", path), "Service", "boardlet-broker")["spec"]["ports"]
    assert [p["port"] for p in ports if p.get("nodePort") == 31883] == [port]


def test_the_bridge_may_reach_the_api_servers_of_small_clusters(helm: Any) -> None:
    """The policy sees the address behind the Service: 6443 of k3s and kubeadm, 8443 of minikube, 16443 of MicroK8s."""
    egress = one(helm.render(), "NetworkPolicy", "boardlet-bridge")["spec"]["egress"]
    assert {443, 6443, 8443, 16443} <= {port["port"] for rule in egress for port in rule["ports"]}


@pytest.mark.parametrize(
    ("values", "there", "not_there"),
    [
        (
            [],
            ["> root.key)", "boardlet-broker", "samples/greenhouse.yaml\n", "--wifi-password-file wifi\n"],
            ["password k7", "ownPod"],
        ),
        (["broker.ownPod=false"], ["broker.ownPod=true they do not.\nBoards reach the broker at:"], ["password k7"]),
        (["namespaces={north,south}"], ["greenhouse.yaml -n north", "--namespace north"], ["south"]),
        (
            ["secrets.existing=mine", "broker.external.host=mqtt"],
            ["secret mine", "> root.key)", "password k7"],
            ["boardlet-broker", "ownPod"],
        ),
        (["broker.external.host=mqtt", "settings.broker_logins=dynamic-security"], ["> root.key)"], ["password k7"]),
        (["metrics.serviceMonitor.enabled=true"], ["networkPolicy.metricsFrom", "> root.key)"], []),
        (["metrics.serviceMonitor.enabled=true,networkPolicy.enabled=false"], ["> root.key)"], ["metricsFrom"]),
        (["broker.tls.secret=t,broker.tls.only=true"], ["with TLS only", "--broker-ca ca.crt"], ["password k7"]),
    ],
)
def test_the_notes_say_the_next_command(helm: Any, values: list[str], there: list[str], not_there: list[str]) -> None:
    """What Helm says in the end leads to the first board; the root key that its commands read is in a file by then."""
    options = [part for value in values for part in ("--set", value)]
    said = helm.run("install", "boardlet", ROOT / "bridge/chart", "-n", "tenant", "--dry-run=client", *options).stdout
    notes = said.partition("\nNOTES:\n")[2]
    assert [words for words in there if words not in notes] == []
    assert [words for words in not_there if words in notes] == []


def test_kinds_and_rights_are_the_files(helm: Any) -> None:
    """The chart's kinds, rights and policies are those of crds/ and bridge/deploy/rbac.yaml, word for word."""
    rendered = {(o["kind"], o["metadata"]["name"]): o for o in helm.render()}
    files = [*sorted((ROOT / "crds").glob("*.yaml")), ROOT / "bridge/deploy/rbac.yaml"]
    sources = [d for path in files for d in documents(path) if d["kind"] != "Namespace"]
    assert len(sources) > 8
    for source in sources:
        made = rendered[source["kind"], source["metadata"]["name"]]
        kept = made["metadata"].pop("annotations", {})
        if source["kind"] == "CustomResourceDefinition":
            assert kept.pop("helm.sh/resource-policy") == "keep"
        assert not kept
        assert made == source


def test_the_rights_to_enrol_come_with_the_setting(helm: Any) -> None:
    """Without enrollment_namespace there are none; with it those of the file, by the release's names, bound there."""
    assert not [o for o in helm.render() if o["metadata"]["name"].endswith("-enrollment")]
    set_ = ["--set", "settings.enrollment_namespace=north"]
    rendered = {o["kind"]: o for o in helm.render(*set_) if o["metadata"]["name"].endswith("-enrollment")}
    binding = rendered.pop("RoleBinding")
    assert list(rendered.values()) == documents(ROOT / "bridge/deploy/enrollment.yaml")
    assert binding["metadata"]["namespace"] == "north"
    assert binding["roleRef"]["name"] == rendered["ClusterRole"]["metadata"]["name"]
    south = helm.render(*set_, namespace="tenant")
    policy = next(o for o in south if o["metadata"]["name"].endswith("-enrollment") and "Policy" in o["kind"])
    assert "system:serviceaccount:tenant:" in policy["spec"]["matchConditions"][0]["expression"]


def test_the_bundled_broker_has_the_documented_settings(helm: Any) -> None:
    """Each setting of mosquitto in docs/operations.md that does not name a file or port stands in the chart as well."""
    made = one(helm.render(), "ConfigMap", "boardlet-broker")["data"]["mosquitto.conf"].splitlines()
    text = (ROOT / "docs/operations.md").read_text().partition("mosquitto.conf <<EOF\n")[2].partition("EOF")[0]
    wanted = [line for line in text.splitlines() if "$PWD" not in line]
    assert len(wanted) > 7
    assert set(wanted) <= set(made)


def test_another_release_has_rights_of_its_own(helm: Any) -> None:
    """A second release elsewhere has its own account, role and policy, and can leave the kinds to the first."""
    done = helm.run("template", "south", ROOT / "bridge/chart", "-n", "tenant", "--set", "kinds.install=false")
    objects = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert not [o for o in objects if o["metadata"]["name"].startswith("boardlet-")]
    assert not [o for o in objects if o["kind"] == "CustomResourceDefinition"]
    policy = one(objects, "ValidatingAdmissionPolicy")
    who = policy["spec"]["matchConditions"][0]["expression"]
    assert who == "request.userInfo.username == 'system:serviceaccount:tenant:south-bridge'"
    assert one(objects, "ClusterRoleBinding")["subjects"][0]["namespace"] == "tenant"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"brokr": {}}, "brokr"),
        ({"broker": {"external": {"host": "tcp://10.0.0.1:1883"}}}, "host"),
        ({"broker": {"tls": {"only": True}}}, "secret"),
        ({"broker": {"persistence": {"size": "a lot"}}}, "size"),
        ({"settings": {"root_key_file": "/x"}}, "root_key_file"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"namespaces": ["North Site"]}, "namespaces"),
        ({"bridge": {"replicas": 2}}, "broker.external.host"),
        ({"bridge": {"replicas": 0}}, "replicas"),
        ({"broker": {"persistence": {"enabled": False}}}, "broker.ownPod=false"),
    ],
)
def test_wrong_values_are_refused(helm: Any, tmp_path: Path, values: dict[str, Any], said: str) -> None:
    """A mistake in the values ends before anything is asked of a cluster, and names the value."""
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    done = helm.run("template", "boardlet", ROOT / "bridge/chart", "-f", path, check=False)
    assert done.returncode != 0
    assert said in done.stderr


def test_replicas_are_replaced_one_by_one(helm: Any) -> None:
    """One bridge ends before the next begins; several share the boards of one broker, and go and come in turn."""
    one_bridge = bridge(helm.render())["spec"]
    assert (one_bridge["replicas"], one_bridge["strategy"]["type"]) == (1, "Recreate")
    many = helm.render("--set", "bridge.replicas=3,broker.external.host=mqtt.example.com")
    several = one(many, "Deployment")["spec"]
    assert (several["replicas"], several["strategy"]["type"]) == (3, "RollingUpdate")
    assert one(many, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_files_for_kubectl_are_the_charts(helm: Any, cluster: Cluster) -> None:
    """bridge/deploy/site.yaml is what the chart makes of its defaults, and `kubectl apply -k .` is all of it."""
    options = [
        "--set",
        "kinds.install=false",
        "--set",
        "rights.install=false",
        "--set",
        "secrets.existing=boardlet-site",
    ]
    assert documents(ROOT / "bridge/deploy/site.yaml") == helm.render(*options, "--skip-tests"), "run `make deploy`"
    built = list(yaml.safe_load_all(cluster.run("kustomize", str(ROOT)).stdout))
    chart = {(o["kind"], o["metadata"]["name"]): o for o in helm.render("--skip-tests")}
    chart.pop(("Secret", "boardlet-site"))
    named = {(o["kind"], o["metadata"]["name"]): o for o in built}
    named.pop(("Namespace", "boardlet-system"))
    assert set(named) == set(chart)
    for key, made in named.items():
        assert made["metadata"].get("namespace") == chart[key]["metadata"].get("namespace")
        assert made.get("spec") == chart[key].get("spec"), key
    everywhere = replace(cluster, namespace=None)
    everywhere.run("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "bridge/deploy/site.yaml"))
