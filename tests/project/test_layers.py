"""The project's own rules that a machine can hold: the direction of imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_imports_point_one_way() -> None:
    """wire <- core <- {mqtt, kube} <- runtime; the core touches nothing; paho and kopf in one layer each."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_names_a_registry_or_a_machine() -> None:
    """No file of the project names a package registry's host or a path of some developer's machine."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    forbidden = [
        "files.python" + "hosted",
        "pypi" + ".org",
        "proxy." + "golang",
        "registry." + "npmjs",
        "deb." + "debian",
    ]
    bad = []
    for name in filter(None, listed.stdout.split("\0")):
        text = (ROOT / name).read_text(errors="replace") if (ROOT / name).is_file() else ""
        bad += [f"{name}: {word}" for word in forbidden if word in text]
    assert not bad
