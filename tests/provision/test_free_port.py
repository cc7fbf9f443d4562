"""Ports of servers that start later: no two of them are given the same."""

from __future__ import annotations

import subprocess
import sys

import pytest
from provision import process
from provision.missing import Missing

ASK = """
import sys
from provision import process
process.random.randrange = lambda first, end: int(sys.argv[1])
print(process.free_port())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that has been given is given to nobody else for a while, here or in another process."""
    port = process.free_port()
    monkeypatch.setattr(process.random, "randrange", lambda first, end: port)
    with pytest.raises(Missing):
        process.free_port()
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(port)], capture_output=True, text=True, timeout=20, check=False
    )
    assert "were all taken" in asked.stderr, asked.stdout
