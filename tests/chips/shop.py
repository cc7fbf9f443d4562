"""Where boards are made: a running site, its site file, and the commands as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site

SAMPLES = Path(__file__).parents[2] / "crds/samples"
BOARD_ID = "k7m2q9xa"


class Shop:
    """Where boards are made: a site file, and the command as a user runs it."""

    def __init__(self, site: Site, cluster: Cluster, folder: Path) -> None:
        cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
        site.add_board(BOARD_ID)  # the broker's credential; the virtual board itself stays off
        self.cluster, self.site = cluster, site
        self.file = str(folder / "site.yaml")
        settings = {"broker": f"127.0.0.1:{site.broker.port}", "namespace": cluster.namespace}
        Path(self.file).write_text(yaml.safe_dump({**settings, "rootKeyFile": f"{site.folder}/root.key"}))
        self.env = {**cluster.env, **{key: os.environ[key] for key in os.environ if key.startswith("BOARDLET_")}}
        self.env["PATH"] = f"{cluster.kubectl.parent}:{os.environ['PATH']}"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`boardlet` with these words."""
        command = [sys.executable, "-m", "boardlet_cli.main", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def start_flash(self, *words: str) -> subprocess.Popen[str]:
        """`boardlet flash` with these words, for the board with the known id."""
        return self.start("flash", "--site", self.file, "--name", "g1", "--board-id", BOARD_ID, *words)

    def flash(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return self.end(self.start_flash(*words))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `boardlet` with these words to its end."""
        return self.end(self.start(*words))

    def end(self, running: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait for it."""
        with running:
            out, err = running.communicate(timeout=150)
        print(out, err)
        return subprocess.CompletedProcess(running.args, running.returncode, out, err)

    def interrupt(self, running: subprocess.Popen[str]) -> str:
        """Ctrl-C while it writes, of which its `--json` tells; it says what to do, and what it printed is returned."""
        assert running.stdout is not None
        for line in running.stdout:
            if json.loads(line)["event"] == "progress":
                running.send_signal(signal.SIGINT)
                break
        out, err = running.communicate(timeout=60)
        assert running.returncode == 130, out + err
        assert "run the same command again" in err
        return out

    def ready(self) -> bool:
        """Whether the Board says that it is Ready, with the LED as its model has it."""
        status: dict[str, Any] = self.cluster.get("board", "g1")["status"]
        return {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"
