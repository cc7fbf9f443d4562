"""docs/folder.md, carried out as it is written: its commands make a site without a control plane, and work on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from folderworld import LED, FolderSite

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/folder.md").read_text()
FIRST, BRIDGE, COMMANDS, *_ = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


def test_a_site_by_the_page(site: FolderSite, tmp_path: Path) -> None:
    """Secrets and objects, then get, describe, set and watch: each line works as written but for the watch's time."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "crds").symlink_to(ROOT / "crds")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def shell(script: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell(FIRST.replace("make venv && ", ""))
    assert len((folder / "site/root.key").read_text()) == 65
    assert '--store "dir:$PWD/site/objects"' in BRIDGE
    site.file.unlink()
    for name in ("greenhouse.yaml", "boards.yaml"):
        shutil.copy(folder / "site/objects" / name, site.objects / name)
    shutil.rmtree(folder / "site/objects")
    (folder / "site/objects").symlink_to(site.objects)
    site.bridge.start()
    site.board.start()
    said = shell(COMMANDS.replace("--for 60", "--for 1"))
    assert site.board.pin(LED) == 1
    assert "led=true; the board runs it" in said
