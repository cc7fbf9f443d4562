"""A board with a blank flash behind a serial port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from provision.missing import Missing
from virtualboard.pty import PtyBoard


@pytest.fixture
def unpowered(tmp_path: Path) -> PtyBoard:
    """What is to run at power-on is written before it."""
    try:
        return PtyBoard(tmp_path / "board")
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def board(unpowered: PtyBoard) -> Iterator[PtyBoard]:
    """At its prompt, because there is nothing to run."""
    with unpowered:
        yield unpowered
