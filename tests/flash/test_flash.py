"""`boardlet flash` against a real MicroPython behind a serial port: what it writes, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from boardimage import image
from boardlet_cli import info
from boardlet_cli.cluster import Cluster
from boardlet_cli.session import readiness
from boardlet_cli.site import Site
from provision.process import free_port
from virtualboard.pty import PtyBoard

SAMPLES = Path(__file__).parents[2] / "crds/samples"
BOARD_ID = "k7m2q9xa"


def flash(site: Site, cluster: Cluster, port: str, *more: str, key: Path | None = None, broker: int | None = None):
    """Run the command as a user does."""
    command = [sys.executable, "-m", "boardlet_cli.main", "flash", port, "--name", "g1", "--model", "greenhouse"]
    command += [
        "--broker",
        f"127.0.0.1:{broker or site.broker.port}",
        "--root-key",
        str(key or site.folder / "root.key"),
    ]
    command += ["--namespace", str(cluster.namespace), *more]
    env = {**cluster.env, "PATH": f"{cluster.kubectl.parent}:{os.environ['PATH']}"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_blank_board_becomes_ready(site: Site, cluster: Cluster, board: PtyBoard) -> None:
    """One command makes a greenhouse board of a blank MicroPython: agent, identity, object, reset, Ready."""
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    site.add_board(BOARD_ID)  # the broker's credential; the virtual board itself stays off
    done = flash(site, cluster, board.port, "--board-id", BOARD_ID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "edit board g1" in done.stdout
    assert cluster.get("board", "g1")["spec"]["boardID"] == BOARD_ID
    again = flash(site, cluster, board.port)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 files to write" in again.stdout
    assert f"id {BOARD_ID}" in again.stdout, "a board that has an identity keeps it"


def test_dry_run_changes_nothing(site: Site, cluster: Cluster, board: PtyBoard) -> None:
    """--dry-run shows the plan, and leaves board and cluster as they were."""
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    done = flash(site, cluster, board.port, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(image())} files to write" in done.stdout
    assert list(board.flash.iterdir()) == []
    assert cluster.run("get", "boards", "-o", "name").stdout == ""


def test_errors_say_the_cause_and_the_next_step(site: Site, cluster: Cluster, board: PtyBoard, tmp_path: Path) -> None:
    """No port, no broker, a wrong key, no cluster: each is one line with what to do, and exit code 1."""
    no_port = flash(site, cluster, "/dev/ttyNone")
    no_broker = flash(site, cluster, board.port, broker=free_port())
    (tmp_path / "short.key").write_text("abcd")
    wrong_key = flash(site, cluster, board.port, key=tmp_path / "short.key")
    nowhere = Cluster(cluster.kubectl, {**cluster.env, "KUBECONFIG": "/dev/null"}, namespace=cluster.namespace)
    no_cluster = flash(site, nowhere, board.port)
    for done, words in (
        (no_port, "there is no port /dev/ttyNone"),
        (no_broker, "start it, or mend --broker"),
        (wrong_key, "must be 64 hexadecimal digits"),
        (no_cluster, "is KUBECONFIG right"),
    ):
        assert done.returncode == 1, done.stdout + done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_what_would_stop_the_object_is_told_before(site: Site, cluster: Cluster, board: PtyBoard) -> None:
    """No such model, a name that is none, an id that another Board has: one message, and an untouched board."""
    no_model = flash(site, cluster, board.port)
    cluster.run("apply", "-f", str(SAMPLES))
    taken = flash(site, cluster, board.port, "--board-id", BOARD_ID)
    no_name = flash(site, cluster, board.port, "--name", "No Name")
    for done, words in (
        (no_model, "there is no BoardModel greenhouse in namespace"),
        (taken, f"the id {BOARD_ID} is that of Board greenhouse-1: say --name greenhouse-1"),
        (no_name, 'Invalid value: "No Name"'),
    ):
        assert done.returncode == 1, done.stdout + done.stderr
        assert words in done.stderr
    assert list(board.flash.iterdir()) == []


def test_a_board_that_does_not_come_says_why(site: Site, cluster: Cluster, board: PtyBoard) -> None:
    """A board whose user the broker does not know is flashed, and the end says what its object says, and what to do."""
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    done = flash(site, cluster, board.port, "--board-id", BOARD_ID, "--wait-s", "2")
    assert done.returncode == 7, done.stdout + done.stderr
    assert "not Ready: Asking: asked the board" in done.stderr
    assert f"boardlet password {BOARD_ID}" in done.stderr


def test_a_status_of_before_is_not_taken_for_ready(site: Site, cluster: Cluster, board: PtyBoard) -> None:
    """Without a bridge a Board says Ready as it did: flashed again, it is not until its board has said so."""
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    site.add_board(BOARD_ID)
    assert flash(site, cluster, board.port, "--board-id", BOARD_ID).returncode == 0
    site.bridge.kill()
    stale = flash(site, cluster, board.port, "--wait-s", "3")
    assert readiness(cluster.get("board", "g1"))["status"] == "True"
    assert stale.returncode == 7, stale.stdout + stale.stderr
    assert "of before the reset: the board has begun no session since" in stale.stderr
    site.bridge.start()
    done = flash(site, cluster, board.port)
    assert done.returncode == 0, done.stdout + done.stderr


def test_info_takes_no_status_of_before(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Board that is Ready in the session of before the look is a problem, in another one it is well."""
    cluster.run("apply", "-f", str(SAMPLES))
    condition = {"type": "Ready", "status": "True", "reason": "Synced", "message": "", "observedGeneration": 1}
    status = {
        "conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "session": {"epoch": "0123456789abcdef"},
    }
    patch = json.dumps({"status": status})
    cluster.run("patch", "board", "greenhouse-1", "--subresource=status", "--type=merge", "-p", patch)
    monkeypatch.setattr(info, "BACK_S", 1)
    board = cluster.get("board", "greenhouse-1")
    for before, problems in ((board, 1), ({**board, "status": {"session": {"epoch": "00"}}}, 0)):
        said: list[str] = []
        info._of_object(cluster, [before], {"port": "p", "id": BOARD_ID}, said)
        assert len(said) == problems, said
        assert not said or "Board greenhouse-1 is Ready, but what it says is of before the reset" in said[0]


def test_the_plan_names_the_cluster_and_the_model_that_the_board_has(
    site: Site, cluster: Cluster, board: PtyBoard
) -> None:
    """Of a Board that is there the plan shows the object's model, and --model of another one is refused before."""
    cluster.run("apply", "-f", str(SAMPLES))
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "t1"}}
    spec = {"boardID": "t7m2q9xa", "modelRef": {"name": "thermostat"}}
    cluster.run("create", "-f", "-", stdin=json.dumps({**body, "spec": spec}))
    (cluster_site := board.flash.parent / "site.yaml").write_text(
        json.dumps({"broker": f"127.0.0.1:{site.broker.port}", "rootKeyFile": str(site.folder / "root.key")})
    )
    more = ["--namespace", str(cluster.namespace), "--dry-run", "--name", "t1", "--site", str(cluster_site)]
    command = [sys.executable, "-m", "boardlet_cli.main", "flash", board.port, *more]
    env = {**cluster.env, "PATH": f"{cluster.kubectl.parent}:{os.environ['PATH']}"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], env=env, capture_output=True, text=True, timeout=60, check=False)

    server = cluster.run("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}").stdout
    lines, facts, other = run(), run("--json"), run("--model", "greenhouse")
    assert lines.returncode == 0, lines.stdout + lines.stderr
    assert "Board t1 (is there, model thermostat)" in lines.stdout
    assert f"({server})" in lines.stdout
    plan = json.loads(facts.stdout.splitlines()[0])
    assert (plan["event"], plan["model"], plan["cluster"]) == ("plan", "thermostat", server)
    assert other.returncode == 1
    assert "Board t1 is a thermostat, and --model says greenhouse" in other.stderr


def test_flashing_is_no_failed_boot(site: Site, cluster: Cluster, board: PtyBoard) -> None:
    """Flashed again and again right after an edit, a board does not take its resets for the edit's failures."""
    cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    site.add_board(BOARD_ID)
    for _ in range(3):
        done = flash(site, cluster, board.port, "--board-id", BOARD_ID)
        assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.get("board", "g1")["status"]["board"]["bootCount"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--broker", "h:x"], "'h:x' is not HOST or HOST:PORT"),
        (["--broker", "mqtt://h"], "is not HOST or HOST:PORT"),
        (["--broker", "h:99999"], "is not HOST or HOST:PORT"),
        (["--broker", "h", "--wifi-password-file", __file__], "of no use without --wifi"),
        (["--broker", "h", "--wifi", "w", "--wifi-password-file", "none"], "does not exist"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    """What no board is needed to see is wrong usage: the option is named, exit code 2."""
    command = [sys.executable, "-m", "boardlet_cli.main", "flash", "/dev/ttyNone", "--name", "x", "--root-key", "k"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_kubectl_has_every_command_as_its_own(cluster: Cluster) -> None:
    """`kubectl board approve` is `boardlet approve`: kubectl finds it on the PATH, and -n means what it does there."""
    env = {**cluster.env, "PATH": f"{Path(sys.executable).parent}:{cluster.kubectl.parent}:{os.environ['PATH']}"}
    words = ["board", "approve", "0123456789abcdef", "--board", "g1", "-n", str(cluster.namespace)]
    done = subprocess.run([cluster.kubectl, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no board with the fingerprint 0123456789abcdef has asked" in done.stderr


def test_a_file_that_is_no_port(site: Site, cluster: Cluster) -> None:
    """A path that is there and no serial port is not called busy."""
    done = flash(site, cluster, "/dev/null")
    assert done.returncode == 1
    assert "/dev/null is no serial port" in done.stderr


def test_a_port_without_micropython(site: Site, cluster: Cluster) -> None:
    """A port where nothing answers, neither MicroPython nor a chip, is named as such, in bounded time."""
    host, slave = pty.openpty()
    brief = Cluster(cluster.kubectl, {**cluster.env, "BOARDLET_KNOCK_S": "0.5"}, namespace=cluster.namespace)
    try:
        done = flash(site, brief, os.ttyname(slave))
    finally:
        os.close(host)
        os.close(slave)
    assert done.returncode == 4
    assert "neither MicroPython nor an Espressif chip answers" in done.stderr


def test_ids_that_differ_are_refused(site: Site, cluster: Cluster, board: PtyBoard) -> None:
    """A board that belongs to another object is not taken over by mistake."""
    (board.flash / "config.json").write_text('{"id": "aaaaaaaa"}')
    done = flash(site, cluster, board.port, "--board-id", BOARD_ID)
    assert done.returncode == 1
    assert "the ids differ" in done.stderr
