"""A board with a blank flash behind a serial port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from provision.missing import Missing
from virtualboard.pty import PtyBoard


@pytest.fixture
def board(tmp_path: Path) -> Iterator[PtyBoard]:
    try:
        made = PtyBoard(tmp_path / "board")
    except Missing as missing:
        pytest.skip(str(missing))
    with made:
        yield made
