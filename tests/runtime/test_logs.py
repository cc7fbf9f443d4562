"""What the bridge logs: one JSON object a line, at the level of its component."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from boardlet_bridge.runtime.logs import COMPONENTS

BRIDGE = Path(__file__).parents[2] / "bridge/boardlet_bridge"
SCRIPT = """
import structlog
from boardlet_bridge.runtime import logs
early = structlog.get_logger("engine")  # as a module has it before anything is configured
logs.configure("warning", "json", {"engine": "debug", "status": "error"})
for name in ("engine", "status", "lease"):
    for level in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(name), level)("said", object="north/g1")
early.debug("said", object="north/g1")
"""


def test_levels_are_those_of_the_components() -> None:
    """A component with a level of its own is louder or quieter than the others, which have the general one."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    said = [(line["logger"], line["level"]) for line in lines]
    assert said == [
        ("engine", "debug"), ("engine", "info"), ("engine", "warning"), ("engine", "error"),
        ("status", "error"),
        ("lease", "warning"), ("lease", "error"),
        ("engine", "debug"),
    ]  # fmt: skip
    assert all(line["object"] == "north/g1" and line["timestamp"] for line in lines)


def test_every_component_can_be_named() -> None:
    """The names that log_levels takes are those under which the code logs, and no others."""
    found = set()
    for path in BRIDGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("structlog.get_logger", "Complaint"):
                found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    assert found == set(COMPONENTS)
