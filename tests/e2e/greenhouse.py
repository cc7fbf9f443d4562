"""Words for end-to-end tests: one greenhouse board, edits, and waiting on what the object says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from virtualboard import VirtualBoard

SAMPLES = Path(__file__).parents[2] / "crds/samples"
WAIT_S = 30.0
# A board that proves and counts itself stable quickly, so that tests need not wait half a minute.
QUICK = {"proven_s": 1, "stable_s": 1}
LED, LIGHT, DOOR = 2, 34, 4


@dataclass
class Greenhouse:
    """One Board object, its virtual board, and the site around both."""

    site: Site
    cluster: Cluster
    name: str
    board: VirtualBoard
    board_id: str

    def edit(self, **properties: Any) -> int:
        """Patch spec.properties and return the new generation."""
        patch = json.dumps({"spec": {"properties": properties}})
        self.cluster.run("patch", "board", self.name, "--type=merge", "-p", patch)
        return int(self.object["metadata"]["generation"])

    @property
    def object(self) -> dict[str, Any]:
        return self.cluster.get("board", self.name)

    def condition(self, type_: str, obj: dict[str, Any] | None = None) -> tuple[str, str]:
        found = {c["type"]: c for c in (obj or self.object)["status"]["conditions"]}.get(type_, {})
        return found.get("status", ""), found.get("reason", "")

    def changed_at(self, type_: str, obj: dict[str, Any]) -> float:
        """When a condition became what it is, in whole seconds of the wall clock, however late it was heard of."""
        said = next(c["lastTransitionTime"] for c in obj["status"]["conditions"] if c["type"] == type_)
        return datetime.fromisoformat(said).timestamp()

    def until(self, type_: str, status: str, reason: str | None = None, wait_s: float = WAIT_S) -> dict[str, Any]:
        """The object once a condition says so of its present generation."""

        def true(obj: dict[str, Any]) -> bool:
            for c in obj.get("status", {}).get("conditions", []):
                if c["type"] == type_ and c.get("observedGeneration") == obj["metadata"]["generation"]:
                    return c["status"] == status and reason in (None, c["reason"])
            return False

        return self.cluster.until("board", self.name, true, wait_s)

    def synced(self, generation: int | None = None, wait_s: float = WAIT_S) -> dict[str, Any]:
        """The object once the board has confirmed this generation (default: the present one)."""
        wanted = generation or self.object["metadata"]["generation"]

        def true(obj: dict[str, Any]) -> bool:
            status = obj.get("status", {})
            ready = {c["type"]: c["status"] for c in status.get("conditions", [])}.get("Ready")
            return ready == "True" and status.get("observedGeneration", 0) >= wanted

        return self.cluster.until("board", self.name, true, wait_s)

    def reported(self, wait_s: float = WAIT_S, **values: Any) -> dict[str, Any]:
        """The object once its board has reported these values."""

        def true(obj: dict[str, Any]) -> bool:
            have = obj.get("status", {}).get("reported") or {}
            return all(have.get(name) == value for name, value in values.items())

        return self.cluster.until("board", self.name, true, wait_s)


def greenhouse(site: Site, name: str = "g1", board_id: str = "k7m2q9xa", **config: Any) -> Greenhouse:
    """A greenhouse board with its objects, powered on; not waited for."""
    board = site.add_board(board_id, config={**QUICK, **config})
    board.set_adc(LIGHT, 100)
    made = Greenhouse(site, site.cluster, name, board, board_id)
    site.cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
    create(made)
    board.start()
    return made


def create(one: Greenhouse, **spec: Any) -> None:
    """Create the Board object."""
    body = {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "Board",
        "metadata": {"name": one.name},
        "spec": {"boardID": one.board_id, "modelRef": {"name": "greenhouse"}, **spec},
    }
    one.cluster.run("create", "-f", "-", stdin=json.dumps(body))
