"""Tests beside this file may speak as a board does: with the peer of the core's tests."""

import sys
from pathlib import Path

import pytest
from outlet import Outlet

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))


@pytest.fixture
def outlet() -> Outlet:
    return Outlet()
