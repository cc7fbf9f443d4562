"""A 32-bit Cortex-M without an operating system, at its serial line: unmodified mpremote, and our flashing."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from boardimage import image
from boardlet_bridge.core.root_key import only
from boardlet_cli import flash
from boardlet_cli.device import Device
from boardlet_cli.flash import Plan
from boardlet_cli.identity import Identity
from boardlet_cli.order import FlashFailed, Order
from provision.missing import Missing
from virtualboard.cortexm import CortexMBoard, firmware

BOARD_ID = "k7m2q9xa"
ORDER = Order(None, "g1", "greenhouse", "10.0.0.5", 1883, only(secrets.token_bytes(32)), BOARD_ID, romfs=False)


def powered(frozen: bool) -> Iterator[CortexMBoard]:
    """A board at its prompt."""
    try:
        with CortexMBoard(firmware(frozen=frozen)) as board:
            yield board
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def blank() -> Iterator[CortexMBoard]:
    """With nothing on its flash."""
    yield from powered(frozen=False)


@pytest.fixture
def frozen() -> Iterator[CortexMBoard]:
    """With the agent in its image."""
    yield from powered(frozen=True)


def look(device: Device) -> Plan:
    """What would be written."""
    return flash.plan(ORDER, device, Identity(BOARD_ID, True, flash.configuration(device)))


def write(board: CortexMBoard) -> Plan:
    """Flash it, and reset it."""
    with Device(board.port) as device:
        plan = look(device)
        flash.write(plan, device, lambda path, written: None)
    return plan


def test_mpremote(blank: CortexMBoard, tmp_path: Path) -> None:
    """The unmodified command copies a file there and back over a reset of the processor."""
    content = bytes(range(256)) * 8
    (tmp_path / "there").write_bytes(content)
    for words in (
        ["fs", "cp", str(tmp_path / "there"), ":x"],
        ["reset"],
        ["fs", "cp", ":x", str(tmp_path / "back")],
    ):
        command = [sys.executable, "-m", "mpremote", "connect", blank.port, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "back").read_bytes() == content


def test_flashing_a_bare_board(blank: CortexMBoard) -> None:
    """Every file arrives on its littlefs, byte for byte; flashed again after a reset there is nothing to write."""
    plan = write(blank)
    assert set(plan.write) == set(image())
    with Device(blank.port) as device:
        info = device.info()
        assert (info.platform, info.version[:2]) == ("qemu", (1, 25))
        assert {path for path in device.walk() if not path.startswith("state/")} == {*image(), "config.json"}
        assert device.read("boardlet/link.mpy") == image()["boardlet/link.mpy"]
        assert json.loads(device.read("config.json") or b"")["id"] == BOARD_ID
        again = look(device)
        assert (again.write, again.remove, again.config_changes) == ({}, (), False)


def test_an_agent_in_the_image_needs_no_files(frozen: CortexMBoard) -> None:
    """The frozen agent is recognised, only the configuration is written, and files that would hide the agent go."""
    with Device(frozen.port) as device:
        assert device.frozen_agent() == flash.VERSION
        device.put("boardlet/agent.mpy", b"old")
        plan = look(device)
        assert (plan.write, plan.remove, plan.frozen) == ({}, ("boardlet/agent.mpy",), flash.VERSION)
        flash.write(plan, device, lambda path, written: None)
        assert {path for path in device.walk() if not path.startswith("state/")} == {"config.json"}
        said = device._run("import boardlet.store; print(boardlet.store.__file__)")
        assert said.strip() == "boardlet/store.py", "out of the image"
        device.put("drivers/own.txt", b"somebody's")
        with pytest.raises(FlashFailed, match=r"drivers/own.txt hides the agent"):
            look(device)
