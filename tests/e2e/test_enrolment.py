"""Enrolment end to end: a board that holds nothing but a claim becomes a Board by a person's word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import paho.mqtt.client as paho
import pytest
from boardlet_bridge.core.codec import Fields, encode
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.enrollment import ClaimKeys
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boardlet_wire import seal
from boardlet_wire.names import RequestKey
from boardlet_wire.topic import topic
from broker.access import BRIDGE
from greenhouse import QUICK, SAMPLES, WAIT_S
from virtualboard import VirtualBoard
from virtualboard.pty import PtyBoard

RIGHTS = Path(__file__).parents[2] / "bridge/deploy/enrollment.yaml"


@pytest.fixture
def site(
    cluster: Cluster,
    make_site: Callable[..., Site],
    broker_programs: Any,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Site:
    """A site that lets boards enrol in the test's namespace; with the parameter True, by TLS alone."""
    if broker_programs.name != "mosquitto":
        pytest.skip("the files are mosquitto's")
    cluster.run("apply", "-f", str(RIGHTS))
    cluster.run(
        "create", "rolebinding", "boardlet-bridge-enrollment", "--clusterrole=boardlet-bridge-enrollment",
        "--serviceaccount=boardlet-system:boardlet-bridge",
    )  # fmt: skip
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    own = {"enrollment_namespace": cluster.namespace, "enrollment_ask_s": 1}
    if not getattr(request, "param", False):
        return make_site(own, credentials=True)
    keys = {"broker_psk_file": tmp_path / "site0/broker/keys"}
    return make_site(own | keys, prepare=lambda site: setattr(site.broker, "board_keys", True), credentials=True)


def asking(site: Site, board: VirtualBoard) -> str:
    """The name of the Enrollment of the fingerprint that the board prints on its console."""
    site.bridge.process.wait_until(lambda: "fingerprint" in read(board), WAIT_S)
    fingerprint = read(board).partition("fingerprint ")[2].split()[0]

    def there() -> str:
        selector = f"--field-selector=spec.request.fingerprint={fingerprint}"
        return site.cluster.run("get", "enrollments", selector, "-o", "name").stdout

    site.bridge.process.wait_until(lambda: bool(there()), WAIT_S)
    return there().strip().rpartition("/")[2]


def read(board: VirtualBoard) -> str:
    return board.log.read_text(errors="replace") if board.log.exists() else ""


def approve(cluster: Cluster, name: str, board: str) -> None:
    spec = {"approved": True, "boardName": board, "modelRef": {"name": "greenhouse"}}
    cluster.run("patch", "enrollment", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def until(cluster: Cluster, name: str, reason: str) -> dict[str, Any]:
    def true(obj: dict[str, Any]) -> bool:
        return [c["reason"] for c in obj.get("status", {}).get("conditions", [])] == [reason]

    return cluster.until("enrollment", name, true, WAIT_S)


def test_a_claim_becomes_a_board_and_is_burnt(site: Site) -> None:
    """It appears, is approved with kubectl, is Ready, and holds no claim any more; whoever has it is refused."""
    board = site.add_claim("box1", config=QUICK)
    used = (board.flash / "config.json").read_text()
    board.start()
    name = asking(site, board)
    obj = until(site.cluster, name, "Pending")
    assert obj["spec"]["request"]["hardware"] == b"virtual".hex()
    assert site.cluster.find("board", "g7") is None
    secret = json.loads((board.flash / "config.json").read_text())["secret"]
    approve(site.cluster, name, "g7")
    obj = until(site.cluster, name, "Enrolled")
    site.cluster.run("wait", "--for=condition=Ready", "board/g7", f"--timeout={WAIT_S:.0f}s")
    assert obj["status"]["boardName"] == "g7"
    config = json.loads((board.flash / "config.json").read_text())
    assert not {"claim", "secret"} & set(config)
    assert not (board.flash / "enrol").exists()
    again = site.add_claim("box2", config={**json.loads(used), "secret": secret})
    again.start()
    site.bridge.process.wait_until(lambda: "this claim has been used" in read(again), WAIT_S)
    assert "key" not in json.loads((again.flash / "config.json").read_text())
    assert site.bridge.metric('boardlet_enrollments_total{outcome="burnt"}') >= 1


@pytest.mark.parametrize("site", [True], indirect=True)
def test_a_claim_asks_by_tls(site: Site) -> None:
    """Claim, identity and what follows go over TLS, by the claim's shared key first and then by the board's own."""
    board = site.add_claim("box1", config={**QUICK, "tls": {"psk": True}})
    board.start()
    name = asking(site, board)
    approve(site.cluster, name, "g7")
    until(site.cluster, name, "Enrolled")
    site.cluster.run("wait", "--for=condition=Ready", "board/g7", f"--timeout={WAIT_S:.0f}s")
    assert json.loads((board.flash / "config.json").read_text())["tls"] == {"psk": True}


@contextmanager
def client(
    site: Site, user: str, password: str, *topics: str
) -> Iterator[tuple[paho.Client, Queue[tuple[str, bytes]]]]:
    """Somebody at the broker, subscribed, and what he hears."""
    heard: Queue[tuple[str, bytes]] = Queue()
    ready: Queue[object] = Queue()
    made = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"{user}-test")
    made.username_pw_set(user, password)
    made.on_message = lambda _c, _u, m: heard.put((m.topic, m.payload))
    made.on_connect = lambda c, _u, _f, _code, _p: c.subscribe([(t, 1) for t in topics])
    made.on_subscribe = lambda *_: ready.put(None)
    made.connect("127.0.0.1", site.broker.port)
    made.loop_start()
    try:
        ready.get(timeout=WAIT_S)
        yield made, heard
    finally:
        made.disconnect()
        made.loop_stop()


def claim_of(site: Site) -> ClaimKeys:
    return ClaimKeys.of(KeyRing(site.root, bytes(16)), 1)


def test_a_claim_is_good_for_nothing_else(site: Site) -> None:
    """Whoever holds the claim reaches no topic but requests, hears nothing but answers, and may answer nobody."""
    board_id, asks, answers = "k7m2q9xa", "e/0123456789abcdef/q", "e/0123456789abcdef/a"
    bridge = site.broker.users[BRIDGE]
    with (
        client(site, "claim", claim_of(site).password, "#", "b/#", "e/#") as (thief, told),
        client(site, BRIDGE, bridge, "b/+/+/+", "e/+/q") as (ours, seen),
    ):
        for letter in "srtawldcfi":
            thief.publish(topic(board_id, letter), b"poison", qos=1, retain=True)
            thief.publish(f"b/00/claim/{letter}", b"poison", qos=1, retain=True)
        for forbidden in (answers, "b/~/claim/d", "e/q", "enrolment"):
            thief.publish(forbidden, b"poison", qos=1)
        thief.publish(asks, b"asked", qos=1)
        assert seen.get(timeout=WAIT_S) == (asks, b"asked"), "nothing that was sent before it has passed"
        for letter in "dcfi":
            ours.publish(topic(board_id, letter), b"secret", qos=1)
        ours.publish(answers, b"answered", qos=1)
        assert told.get(timeout=WAIT_S) == (answers, b"answered"), "nothing that was sent before it was heard"
        site.bridge.process.wait_until(lambda: site.bridge.metric(WRONG) == 1, WAIT_S)


WRONG = 'boardlet_enrollments_total{outcome="malformed"}'


def test_a_board_takes_no_answer_but_its_own(site: Site) -> None:
    """An answer of an earlier request and one without the claim's seal move nothing; the next true one does."""
    board = site.add_claim("box1", config=QUICK)
    bridge, keys = site.broker.users[BRIDGE], claim_of(site)
    with client(site, "claim", keys.password, "e/+/a") as (_, answers):
        board.start()
        name = asking(site, board)
        site.cluster.run("patch", "enrollment", name, "--type=merge", "-p", '{"spec":{"approved":false}}')
        site.bridge.process.wait_until(lambda: "denied" in read(board), WAIT_S)
        site.bridge.kill()
        while not answers.empty():
            place, old = answers.get()
    board.kill()
    before = len(read(board))
    with client(site, BRIDGE, bridge, "e/+/q") as (ours, requests):
        board.start()
        _, request = requests.get(timeout=WAIT_S)
        nonce = Fields.decode(request[: -seal.UP_TAG]).octets(RequestKey.NONCE)
        body = encode({0: 1, 1: 1})
        ours.publish(place, old, qos=1)
        ours.publish(place, body + bytes(seal.DOWN_TAG), qos=1)
        assert "enrolment: denied" not in read(board)[before:]
        ours.publish(place, body + seal.tag(keys.down, place, nonce, body, seal.DOWN_TAG), qos=1)
        site.broker.process.wait_until(lambda: "waits for approval" in read(board)[before:], WAIT_S)
    assert "denied" not in read(board)[before:]
    assert read(board)[before:].count("waits") == 1
    site.bridge.start()
    approve(site.cluster, name, "g7")
    until(site.cluster, name, "Enrolled")


def boardlet(site: Site, *arguments: str) -> str:
    """What `boardlet` said, in the test's namespace; it went well."""
    cluster = site.cluster
    command = [sys.executable, "-m", "boardlet_cli.main", *arguments, "--namespace", str(cluster.namespace)]
    env = {**cluster.env, "PATH": f"{cluster.kubectl.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reach(site: Site) -> list[str]:
    """The options of `boardlet flash` that lead to the site."""
    return ["--broker", f"127.0.0.1:{site.broker.board_port}", "--root-key", str(site.folder / "root.key")]


def test_from_blank_to_ready_by_claim_and_approval(site: Site, tmp_path: Path) -> None:
    """`flash --claim` makes a blank MicroPython ask, `approve` by its fingerprint lets it in: two commands."""
    cluster = site.cluster
    with PtyBoard(tmp_path / "board") as board:
        said = boardlet(site, "flash", board.port, "--claim", *reach(site))
        fingerprint = said.rpartition("boardlet approve ")[2].split()[0]
        assert "compare the fingerprint with the board's, then: boardlet approve" in boardlet(site, "info", board.port)
        boardlet(site, "approve", fingerprint, "--board", "g7", "--model", "greenhouse")
        cluster.run("wait", "--for=create", "board/g7", f"--timeout={WAIT_S:.0f}s")
        cluster.run("wait", "--for=condition=Ready", "board/g7", f"--timeout={WAIT_S:.0f}s")
        assert "claim" not in json.loads((board.flash / "config.json").read_text())


def test_a_box_of_blank_boards_asks(site: Site, tmp_path: Path) -> None:
    """`flash --from --claim` has each board of a list ask, and tells the fingerprint of each beside its port."""
    with PtyBoard(tmp_path / "one") as one, PtyBoard(tmp_path / "two") as two:
        (tmp_path / "box.csv").write_text(f"port\n{one.port}\n{two.port}\n")
        said = boardlet(site, "flash", "--from", str(tmp_path / "box.csv"), "--claim", *reach(site))
        told = dict(re.findall(r"(\S+): it asks, with the fingerprint (\w{16})\n", said))
    assert set(told) == {one.port, two.port}
    assert "2 of 2 boards ask to come in" in said
    path = "jsonpath={.items[*].spec.request.fingerprint}"
    assert set(site.cluster.run("get", "enrollments", "-o", path).stdout.split()) == set(told.values())
