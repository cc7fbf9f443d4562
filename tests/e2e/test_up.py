"""`boardlet up`, as the README says it: the story comes true, ends as it should, and leaves nothing."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boardlet_cli.story import StepFailed, Story
from boardlet_cli.up import BOARDS
from controlplane import ControlPlane
from provision.process import free_port
from rich.console import Console

COMMAND = [sys.executable, "-m", "boardlet_cli.main", "up"]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """A temporary folder of its own, so that what is left can be seen."""
    return {**os.environ, "TMPDIR": str(tmp_path), **more}


def leftovers(tmp_path: Path) -> list[str]:
    """Files of the demo, and processes that name its folder."""
    found = [path.name for path in tmp_path.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if str(tmp_path).encode() in words:
            found.append(words.decode(errors="replace"))
    return found


def test_without_a_terminal_it_tells_its_story_and_ends(tmp_path: Path) -> None:
    """CI=true: every step is shown with its command, all were true, exit code 0, nothing left."""
    env = environment(tmp_path, CI="true")
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "All of it was true." in done.stdout
    assert done.stdout.count("$ kubectl") >= 15
    assert "\x1b" not in done.stdout, "no colours where no terminal is"
    assert leftovers(tmp_path) == []


def test_on_a_terminal_it_stays_until_ctrl_c(tmp_path: Path) -> None:
    """On a terminal it stays up, says how to point kubectl at it, and Ctrl-C removes everything."""
    env = environment(tmp_path)
    env.pop("CI", None)
    host, terminal = pty.openpty()
    with subprocess.Popen(
        COMMAND, env=env, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ) as up:
        os.close(terminal)
        said = _read_until(host, b"kubectl get boards -w", 240)
        assert b"export KUBECONFIG=" in said
        up.send_signal(signal.SIGINT)
        _read_until(host, b"\x00never\x00", 60)
        assert up.wait(60) == 0
    os.close(host)
    assert leftovers(tmp_path) == []


def _read_until(descriptor: int, words: bytes, wait_s: float) -> bytes:
    said = b""
    deadline = time.monotonic() + wait_s
    while words not in said and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 1)[0]:
            try:
                part = os.read(descriptor, 65536)
            except OSError:  # the other side has closed the terminal
                return said
            said += part
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_ended_in_the_middle_it_leaves_nothing_and_is_no_success(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, or a terminal that is closed, in the middle of the story: all is removed, and the exit code says so."""
    env = environment(tmp_path, CI="true")
    with subprocess.Popen(COMMAND, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if "condition met" in line:
                break
        up.send_signal(number)
        up.stdout.read()
    assert up.returncode == 130
    assert leftovers(tmp_path) == []


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    """Even a kill -9 of the demo ends everything that it had started."""
    env = environment(tmp_path, CI="true")
    with subprocess.Popen(COMMAND, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if "become Ready" in line or "condition met" in line:
                break
        up.kill()
    deadline = time.monotonic() + 20
    while len(leftovers(tmp_path)) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(leftovers(tmp_path)) <= 1, "only the folder of a demo that could not clean up"


def test_on_a_cluster_of_ones_own(tmp_path: Path, plane: ControlPlane, cluster: Cluster) -> None:
    """--context tells the same story there, in a namespace of its own, and touches nobody else's objects."""
    other = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "other"}}
    other["spec"] = {"boardID": "aaaaaaaa", "modelRef": {"name": "greenhouse"}}
    cluster.run("create", "-f", "-", stdin=json.dumps(other))
    env = environment(tmp_path, CI="true", KUBECONFIG=str(plane.kubeconfig()))
    env["PATH"] = f"{plane.programs.kubectl.parent}:{env['PATH']}"
    command = [*COMMAND, "--context", "boardlet", "--namespace", "own-cluster"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "All of it was true." in done.stdout
    assert "--context boardlet -n own-cluster" in done.stdout, "how to run the story's commands"
    assert plane.kubectl("get", "boards", "-n", "own-cluster", "-o", "name").stdout == ""
    assert cluster.get("board", "other")["status"]["conditions"][0]["reason"] == "Pending"
    there = subprocess.run(
        [*COMMAND, "--context", "boardlet", "--namespace", str(cluster.namespace)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert there.returncode == 1
    assert "name one that is not there, with --namespace" in there.stderr
    assert cluster.find("board", "other"), "a namespace that was there is left as it is"
    wrong = subprocess.run(
        [*COMMAND, "--context", "nonsense"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 1
    assert "nonsense" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert leftovers(tmp_path) == []


def test_a_step_that_is_not_true_ends_the_story(site: Site, cluster: Cluster) -> None:
    """Boards that do not reach the broker make the first step fail: it is named, with the logs that explain it."""
    for board_id in BOARDS.values():
        site.add_board(board_id, config={"port": free_port()})
    with pytest.raises(StepFailed, match="The three boards get power") as failed:
        Story(Console(quiet=True), site, BOARDS, time.monotonic(), wait_s=3).tell()
    assert "the bridge's log" in str(failed.value)
