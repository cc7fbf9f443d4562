"""Helm, and the chart as Helm renders it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm as helms
import pytest
import yaml
from provision.missing import Missing
from provision.progress import for_stream

ROOT = Path(__file__).parents[2]
CHART = ROOT / "bridge/chart"
HELM_S = 120


class Helm:
    """Runs Helm; with `env` against a cluster."""

    def __init__(self, program: Path, home: Path) -> None:
        self.program, self.home = program, home

    def run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        own = {f"HELM_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        command = [str(self.program), *map(str, arguments)]
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {}), **own},
            capture_output=True,
            text=True,
            timeout=HELM_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def render(self, *arguments: str | Path, namespace: str = "boardlet-system") -> list[dict[str, Any]]:
        """The objects of a release named boardlet."""
        text = self.run("template", "boardlet", CHART, "-n", namespace, *arguments).stdout
        return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    try:
        return Helm(helms.find(for_stream()), tmp_path_factory.mktemp("helm"))
    except Missing as missing:
        pytest.skip(str(missing))
