"""docs/operations.md, carried out as it is written: its commands make a site, and a board of it Ready."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import broker as brokers
import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_cli.cluster import Cluster
from broker.access import acl
from controlplane import ControlPlane
from fakes.login import logs_in, until
from provision.process import Process, free_port
from virtualboard.pty import PtyBoard

ROOT = Path(__file__).parents[2]
INSTALL = (ROOT / "docs/operations.md").read_text().partition("## Install")[2].partition("\n## ")[0]
FIRST, BROKER, BRIDGE, CONTAINER, BOARD, BY_HAND = re.findall(r"```sh\n(.*?)```", INSTALL, re.DOTALL)


def shell(script: str, folder: Path, env: dict[str, str]) -> None:
    """Run one block of the page."""
    # A background process that keeps the pipe would keep us waiting: output goes to a file.
    with open(folder / "said", "w+") as said:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=env, stdout=said, stderr=said, timeout=120
        )
        said.seek(0)
        assert done.returncode == 0, script + said.read()


def password(root: Path, board_id: str) -> str:
    return KeyRing(bytes.fromhex(root.read_text().strip()), bytes(16)).broker_password(board_id)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[PtyBoard]:
    """A blank board at a serial port."""
    with PtyBoard(tmp_path / "board") as made:
        yield made


def test_the_page_gives_the_rights_that_the_tests_run_with() -> None:
    """The access list of the page is the one that every other test proves to be enough, and no more."""
    assert acl() in INSTALL


def test_a_site_by_the_book(
    tmp_path: Path,
    plane: ControlPlane,
    cluster: Cluster,
    broker_programs: brokers.Programs,
    board: PtyBoard,
) -> None:
    """Kinds, rights, broker, kubeconfig, bridge, board: each block works as written but for addresses and the port."""
    if broker_programs.name != "mosquitto":
        pytest.skip("the page is about mosquitto")
    folder = tmp_path / "checkout"
    folder.mkdir()
    for part in ("crds", "bridge"):
        (folder / part).symlink_to(ROOT / part)
    mosquitto = broker_programs.program
    folders = [
        plane.programs.kubectl.parent,
        ROOT / ".venv/bin",
        mosquitto.path.parent,
        mosquitto.path.parents[1] / "bin",
    ]
    env = {**mosquitto.env, "PATH": ":".join([*map(str, folders), os.environ["PATH"]])}
    env |= {"KUBECONFIG": str(tmp_path / "kubeconfig"), "BOARDLET_NAMESPACES": f'["{cluster.namespace}"]'}
    (tmp_path / "kubeconfig").write_text(plane.kubeconfig().read_text())
    shell(f"kubectl config set-context --current --namespace={cluster.namespace}", folder, env)
    port, http = free_port(), free_port()

    shell(FIRST.replace("make venv && ", ""), folder, env)
    user = "user root\n" if os.geteuid() == 0 else ""  # the folder of a test is nobody else's
    shell(BROKER.replace("listener 1883", f"{user}listener {port} 127.0.0.1"), folder, env)
    try:
        *before, line = BRIDGE.strip().splitlines()
        shell("\n".join(before), folder, env)
        words = [*line.split(), "--broker-port", str(port), "--http-port", str(http), "--log-format", "console"]
        path = {**env, "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
        bridge = Process(
            "bridge", [ROOT / ".venv/bin" / words[0], *words[1:]], log=tmp_path / "log", env=path, cwd=folder
        )
        bridge.start()
        try:
            script = BOARD.replace("/dev/ttyUSB0", board.port).replace("10.0.0.5", f"127.0.0.1:{port}")
            shell(re.sub(r"\\\n +--wifi .*", "", script), folder, env)
            shell(f"id=p4w8z1vc\n{BY_HAND}", folder, env)
            assert until(lambda: logs_in(port, "p4w8z1vc", password(folder / "site/root.key", "p4w8z1vc")))
            assert bridge.running, bridge.tail()
        finally:
            bridge.stop()
    finally:
        with suppress(FileNotFoundError):
            os.kill(int((folder / "site/mosquitto.pid").read_text()), signal.SIGTERM)
    ready = cluster.run("wait", "--for=condition=Ready", "board/greenhouse-7", "--timeout=1s").stdout
    assert "condition met" in ready
