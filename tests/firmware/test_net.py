"""The radio on real MicroPython, with a network module that a script moves: joined again, and reset when that fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

from virtualboard import interpreter

FIRMWARE = Path(__file__).parents[2] / "firmware"
NETWORK = """
STA_IF = 0
there = True
done = []

class WLAN:
    def __init__(self, interface):
        pass
    def isconnected(self):
        return there
    def active(self, on):
        done.append("on" if on else "off")
    def connect(self, *wifi):
        done.append("join")
    def disconnect(self):
        pass
"""
SCRIPT = """
import network
from boardlet.net import Net
from boardlet.ticks import add

now = 12345
net = Net({"wifi": ["site", "password"]})
print(net.ready(now), network.done)
now = add(now, 8 * 24 * 3600 * 1000)
network.there = False
print(net.ready(now), network.done)
for second in range(1, 1000):
    net.ready(add(now, 1000 * second))
print(network.done.count("join"), network.done.count("off"))
network.there = True
print(net.ready(add(now, 1000000)))
"""


def test_a_network_that_goes_after_a_week(tmp_path: Path) -> None:
    """A network that is gone is joined each 20 seconds, and the radio reset after a quarter of an hour, not before,
    however long the network had been there."""
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "t.py").write_text(SCRIPT)
    done = subprocess.run(
        [interpreter(), "t.py"],
        cwd=tmp_path,
        env={"MICROPYPATH": f".:{FIRMWARE}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["True []", "False ['on', 'join']", "50 1", "True"]
