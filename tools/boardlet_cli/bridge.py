"""A bridge process of this checkout, with its health to ask and its log to read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from provision.process import Process, free_port

READY_S: Final = 30.0
_ANSWER_S: Final = 5.0


class BridgeProcess:
    """The bridge in `folder` with these settings (names as in `boardlet-bridge --help`); not started yet."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.port = free_port()
        chosen: dict[str, object] = {"http_port": self.port, "log_format": "console", **settings}
        env = {key: value for key, value in os.environ.items() if not key.startswith(("BOARDLET_", "KUBE"))}
        env |= {f"BOARDLET_{key.upper()}": str(value) for key, value in chosen.items()}
        argv = [sys.executable, "-m", "boardlet_bridge"]
        self.process = Process("bridge", argv, log=folder / "bridge.log", env=env, cwd=folder)

    def start(self) -> None:
        """Start, and return when it is ready: objects listed, broker connected. Raises `Died` or `NotReady`."""
        self.process.start()
        self.wait_ready()

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until /readyz says so."""
        self.process.wait_until(lambda: self.ready, timeout_s)

    @property
    def ready(self) -> bool:
        """Whether /readyz says that it is ready now."""
        return bool(self.parts()) and not any(self.parts().values())

    def parts(self) -> dict[str, str]:
        """Of each part why it is not ready, "" if it is; nothing while the bridge does not answer."""
        text = self.http("/readyz")
        parts: dict[str, str] = json.loads(text)["parts"] if text else {}
        return parts

    def metric(self, name: str) -> float:
        """The value of one metric, labels as Prometheus writes them; 0 while there is none."""
        for line in self.http("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def http(self, path: str) -> str:
        """What the bridge answers to a GET, "" while it does not."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return ""
        finally:
            connection.close()

    def stop(self) -> None:
        """Ask it to end."""
        self.process.stop()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self.process.log.read_text() if self.process.log.exists() else ""
