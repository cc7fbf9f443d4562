"""`boardlet flash` for a broker that speaks TLS: a blank MicroPython to Ready over it, and brokers to refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import broker as brokers
import pytest
from boardimage.authority import CA, der
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from controlplane.pki import Authority
from virtualboard.pty import PtyBoard

SAMPLES = Path(__file__).parents[2] / "crds/samples"
BOARD_ID = "k7m2q9xa"
LED = 2


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority("site")
    (tmp_path / "ca.crt").write_bytes(made.certificate)
    return made


@pytest.fixture
def site(
    make_site: Callable[..., Site], broker_programs: brokers.Programs, authority: Authority, tmp_path: Path
) -> Site:
    """A site whose broker speaks TLS to boards, under the name broker.example."""
    if broker_programs.name != "mosquitto":
        pytest.skip("the demo's mochi-mqtt has no TLS")

    def certify(site: Site) -> None:
        site.broker.board_certificate = authority.server("broker", ["broker.example"]).write(tmp_path, "broker")

    return make_site(prepare=certify)


def boardlet(site: Site, cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    env = {**cluster.env, "PATH": f"{cluster.kubectl.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "boardlet_cli.main", *arguments]
    return subprocess.run(command, env=env, cwd=site.folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_blank_board_becomes_ready_over_tls(
    site: Site, cluster: Cluster, board: PtyBoard, authority: Authority, tmp_path: Path
) -> None:
    """One command gives it the authority and what speaks TLS; it is Ready, obeys an edit, and can be flashed back."""
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    site.add_board(BOARD_ID)  # the broker's credential; the virtual board itself stays off
    (site.folder / "site.yaml").write_text(
        f"broker: 127.0.0.1:{site.broker.board_port}\nbrokerCAFile: {tmp_path / 'ca.crt'}\n"
        f"brokerName: broker.example\nrootKeyFile: root.key\nnamespace: {cluster.namespace}\n"
    )
    seen = boardlet(site, cluster, "doctor").stdout
    assert f"broker 127.0.0.1:{site.broker.board_port} answers by TLS, and turns strangers away" in seen
    command = ("flash", board.port, "--name", "g1", "--board-id", BOARD_ID)
    done = boardlet(site, cluster, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"broker 127.0.0.1:{site.broker.board_port} by TLS" in done.stdout
    cluster.run("patch", "board", "g1", "--type=merge", "-p", '{"spec":{"properties":{"led":true}}}')
    cluster.until("board", "g1", lambda o: o["status"].get("reported", {}).get("led") is True, 30)
    held = json.loads((board.flash / "config.json").read_text())
    assert held["tls"]["name"] == "broker.example"
    assert (board.flash / CA).read_bytes() == der(authority.certificate)
    again = plan(boardlet(site, cluster, *command, "--dry-run", "--json"))
    assert again["files"] == {"write": [], "kept": again["files"]["kept"], "remove": []}
    (site.folder / "site.yaml").unlink()
    plain = ("--broker", f"127.0.0.1:{site.broker.port}", "--root-key", "root.key", "--namespace", cluster.namespace)
    back = plan(boardlet(site, cluster, *command, *map(str, plain), "--dry-run", "--json"))
    assert (back["tls"], back["files"]["remove"]) == (False, ["boardlet/tls.mpy", CA])


def test_a_broker_that_boards_would_refuse(site: Site, cluster: Cluster, board: PtyBoard, tmp_path: Path) -> None:
    """Another authority, another name, no TLS at that port, no certificate at all: told before anything is changed."""
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    other = tmp_path / "other.crt"
    other.write_bytes(Authority("other").certificate)
    right = ("--broker-ca", str(tmp_path / "ca.crt"))
    named = ("--broker-name", "broker.example")
    for port, more, words in (
        (site.broker.board_port, ("--broker-ca", str(other), *named), "boards would refuse the broker at"),
        (site.broker.board_port, right, "mend --broker-ca or --broker-name"),
        (site.broker.port, (*right, *named), "is that the broker's port for TLS?"),
        (site.broker.board_port, ("--broker-ca", str(site.folder / "root.key")), "is no authority's certificate"),
    ):
        done = boardlet(
            site, cluster, *("flash", board.port, "--name", "g1", "--root-key", "root.key"),
            *("--broker", f"127.0.0.1:{port}", "--namespace", str(cluster.namespace), *more),
        )  # fmt: skip
        assert done.returncode == 1, done.stdout + done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert list(board.flash.iterdir()) == []


def test_a_blank_board_becomes_ready_by_a_shared_key(
    make_site: Callable[..., Site], broker_programs: brokers.Programs, cluster: Cluster, board: PtyBoard, tmp_path: Path
) -> None:
    """Where the bridge keeps the broker's keys too, a board needs neither certificate nor time to become Ready.

    Its key follows from the site's root key as its password does, and goes with its Board.
    """
    if broker_programs.name != "mosquitto":
        pytest.skip("the demo's mochi-mqtt has no TLS")

    def share(site: Site) -> None:
        site.broker.board_keys = True

    keys = tmp_path / "site0/broker/keys"
    site = make_site({"broker_psk_file": keys}, prepare=share, credentials=True)
    assert site.broker.keys_file == keys
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    broker = f"127.0.0.1:{site.broker.board_port}"
    done = boardlet(
        site, cluster, *("flash", board.port, "--name", "g1", "--root-key", "root.key", "--broker", broker),
        *("--broker-psk", "--board-id", BOARD_ID, "--namespace", str(cluster.namespace)),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"broker {broker} by TLS with a shared key" in done.stdout
    assert json.loads((board.flash / "config.json").read_text())["tls"] == {"psk": True}
    assert not (board.flash / CA).exists()
    assert BOARD_ID in keys.read_text()
    cluster.run("delete", "board", "g1", "--timeout=30s")
    site.bridge.process.wait_until(lambda: BOARD_ID not in keys.read_text(), 30)


def plan(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What it says that it would do."""
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = next(e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "plan")
    return found
