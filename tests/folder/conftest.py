"""A site without any control plane: folder, broker, bridge and virtual board, all real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import broker as brokers
import pytest
from folderworld import FolderSite


@pytest.fixture
def site(broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[FolderSite]:
    """A greenhouse whose objects are in a folder; nothing runs yet but the broker."""
    made = FolderSite(tmp_path / "site", broker_programs)
    try:
        made.broker.start()
        yield made
    finally:
        made.stop()
        print(f"--- bridge\n{made.bridge.log[-6000:]}")
