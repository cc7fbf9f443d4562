"""A fleet process as a test or a benchmark holds it: start, orders, what its boards say of themselves."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any, Final

from boardlet_cli.site import Site
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from provision.missing import Missing
from provision.process import Process

from .__main__ import MISSING, board_id

ANSWER_S: Final = 60.0


class Fleet:
    """`count` simulated boards of a site, known to its broker."""

    def __init__(self, site: Site, count: int) -> None:
        self.ids = [board_id(n) for n in range(count)]
        for name in self.ids:
            key = board_key(site.root, name, 1)
            site.broker.users[name] = seal.half_key(key, seal.PASSWORD).hex()[:32]
        site.broker.reload()
        self._path = site.folder / "fleet.sock"
        argv: list[str | Path] = [sys.executable, "-m", "fleet", "--root-key", site.folder / "root.key"]
        argv += ["--port", str(site.broker.port), "--count", str(count), "--socket", self._path]
        self.process = Process("fleet", argv, log=site.folder / "fleet.log")
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start the process; its boards are off. Raises `Missing` where this machine cannot hold them."""
        self.process.start()
        self.process.wait_until(lambda: self._reached() or self.process.returncode == MISSING)
        if self._socket is None:
            raise Missing("open files", self.process.tail().strip())
        self._answers = self._socket.makefile("rb")

    def _reached(self) -> bool:
        attempt = socket.socket(socket.AF_UNIX)
        attempt.settimeout(ANSWER_S)
        if attempt.connect_ex(str(self._path)):
            attempt.close()
            return False
        self._socket = attempt
        return True

    def stop(self) -> None:
        """End it, as a power cut of the whole site would."""
        if self._socket is not None:
            self._socket.close()
        self.process.kill()

    def connect(self, per_s: float = 1e9) -> None:
        """Power all boards on, so many a second; returns at once."""
        self._order("connect", first=0, last=len(self.ids), per_s=per_s)

    def cut(self) -> None:
        """Cut the power of all boards."""
        self._order("cut")

    def change(self, *ranges: tuple[int, int, float]) -> None:
        """Have boards first..last-1 change a sensor so often a second; without ranges nothing changes any more."""
        self._order("change", ranges=[{"first": a, "last": b, "per_s": rate} for a, b, rate in ranges])

    def once(self) -> None:
        """Have every sensor of every board change once."""
        self._order("once")

    def flood(self, per_s: float) -> None:
        """Have all boards in turn change a sensor, so many changes a second in all."""
        self._order("flood", per_s=per_s)

    def counts(self) -> dict[str, float]:
        """What the boards have done so far, how many are connected, how far the process lags behind its plan."""
        found: dict[str, float] = self._order("counts")
        return found

    def state(self) -> dict[str, tuple[bool, int | None, dict[str, Any]]]:
        """Of each board: whether it is connected, the generation that it runs, its values by index."""
        found: dict[str, tuple[bool, int | None, dict[str, Any]]] = self._order("state")
        return found

    def _order(self, do: str, **details: Any) -> Any:
        assert self._socket is not None, "the fleet is not started"
        self._socket.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
        return json.loads(self._answers.readline())

    def __enter__(self) -> Fleet:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
