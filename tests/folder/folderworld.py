"""Words for tests of a folder that is the store: a site, and what the status files say."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import broker as brokers
import yaml
from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.site import Site
from virtualboard import VirtualBoard

SAMPLES = Path(__file__).parents[2] / "crds/samples"
WAIT_S = 30.0
LED, LIGHT = 2, 34
BOARD = """\
# The lamp over the door; ask Ada before you change it.
apiVersion: boardlet.dev/v1alpha1
kind: Board
metadata:
  name: g1
spec:
  boardID: k7m2q9xa
  modelRef: {name: greenhouse}
  properties: {led: false}  # off at night
"""


def until(true: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    """What `true` returns once that counts as true."""
    deadline = time.monotonic() + wait_s
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < deadline, f"not so after {wait_s:.0f} s"
        time.sleep(0.01)


def loaded(path: Path) -> dict[str, Any]:
    """What a YAML file says, nothing while there is none: it may go at any moment."""
    try:
        found: dict[str, Any] = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    return found


class FolderSite(Site):
    """Broker, bridge and one board; the objects are files in `objects`."""

    def __init__(self, folder: Path, programs: brokers.Programs) -> None:
        super().__init__(folder, None, programs)
        self.objects = folder / "objects"
        (self.objects / "north").mkdir(parents=True)
        (self.objects / "greenhouse.yaml").write_text((SAMPLES / "greenhouse.yaml").read_text())
        self.file = self.objects / "north/boards.yaml"
        self.file.write_text(BOARD)
        del self.settings["kubeconfig"]
        self.settings |= {"store": f"dir:{self.objects}", "store_absent_s": 1, "status_interval_s": 0.2}
        self.bridge = BridgeProcess(folder, self.settings)
        self.board: VirtualBoard = self.add_board("k7m2q9xa", config={"proven_s": 1, "stable_s": 1})
        self.board.set_adc(LIGHT, 100)

    def object(self, name: str = "g1") -> dict[str, Any]:
        """The object as its status file has it, nothing while there is none."""
        return loaded(self.objects / f".status/default/boards/{name}.status")

    def edit(self, old: str, new: str) -> None:
        """Edit the file as a person does, in place."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def synced(self, generation: int) -> dict[str, Any]:
        """The object once its board has confirmed this generation."""

        def true() -> dict[str, Any] | None:
            obj = self.object()
            status = obj.get("status", {})
            said = {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", ())}
            ready = said.get("Ready") == ("True", "Synced") and status.get("observedGeneration") == generation
            return obj if ready and obj["metadata"]["generation"] == generation else None

        return until(true)

    def boardlet(self, *words: str) -> str:
        """What a command on this folder prints."""
        done = subprocess.run(self._command(*words), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def watch(self) -> Callable[[], list[str]]:
        """Watch Boards from now on; the call that is returned ends it, and returns its lines."""
        process = subprocess.Popen(self._command("watch", "boards"), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = [process.stdout.readline(), process.stdout.readline()]

        def end() -> list[str]:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=30)
            assert process.returncode == 130
            return [line.rstrip("\n") for line in (*first, *rest.splitlines())]

        return end

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "boardlet_cli.main", *words, "--store", f"dir:{self.objects}"]

    @property
    def problems(self) -> list[dict[str, Any]]:
        """What the file of problems says."""
        return loaded(self.objects / ".status/problems").get("problems", [])
