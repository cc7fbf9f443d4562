"""The agent in ROMFS: a partition written as flash is, on a Cortex-M without an operating system, by mpremote."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from boardimage import Image, image, romfs
from boardimage.agent import FOLDERS, MAIN
from boardlet_bridge.core.root_key import only
from boardlet_cli import backup, flash, info
from boardlet_cli.device import Device, DeviceError
from boardlet_cli.flash import Plan
from boardlet_cli.flashing import _way
from boardlet_cli.identity import Identity
from boardlet_cli.order import FlashFailed, Order
from boardlet_cli.romfs import inside
from controlplane import programs
from provision.missing import Missing
from provision.process import free_port
from virtualboard.cortexm import CortexMBoard, firmware

BOARD_ID = "k7m2q9xa"
ORDER = Order(None, "g1", "greenhouse", "10.0.0.5", 1883, only(secrets.token_bytes(32)), BOARD_ID)
# Boards whose partition is another, as their MicroPython says; boot.py runs before the prompt.
VFS = """
import builtins
import vfs as _vfs
_import = __import__
class Vfs:
    VfsRom = _vfs.VfsRom; mount = _vfs.mount; umount = _vfs.umount
    rom_ioctl = lambda *words: {says} if words[0] == {command} else _vfs.rom_ioctl(*words)
builtins.__import__ = lambda name, *more: Vfs if name == "vfs" else _import(name, *more)
"""
SMALL = VFS.format(command=2, says="memoryview(bytes(4096))")
LOCKED = VFS.format(command=4, says="-5")
# What the agent takes of the heap; this port has no network, and these two are only named while it is imported.
HEAP = """
import gc, sys
class Absent: socket = None
for name in ('socket', 'usocket', 'select'):
    sys.modules[name] = Absent
gc.collect()
before = gc.mem_alloc()
import boardlet.agent
gc.collect()
print((boardlet.agent.__file__, gc.mem_alloc() - before))
"""
# Which file each name of the agent stands for: a folder on the flash hides the one in ROMFS.
FOUND = """
import binascii, hashlib, os
found = {{}}
for path in {paths}:
    try:
        os.stat(path.split('/')[0])
        place = path
    except OSError:
        place = '/rom/' + path
    try:
        with open(place, 'rb') as f:
            found[path] = binascii.hexlify(hashlib.sha256(f.read()).digest()).decode()
    except OSError:
        found[path] = ''
print(found)
"""

made = cache(image)  # compiling it is most of what a plan takes


class Cut(Exception):
    """The cable is pulled."""


class Cutting(Device):
    """A board whose cable is pulled at one of the steps that change it."""

    def __init__(self, port: str, at: int) -> None:
        super().__init__(port)
        self.left = at

    def _step(self, *_: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut

    def deploy(self, image: bytes, progress: Any = None) -> None:
        """After each 4 KB, and before and after."""
        self._step()
        super().deploy(image, self._step)
        self._step()

    def put(self, path: str, content: bytes, progress: Any = None) -> None:
        """Before."""
        self._step()
        super().put(path, content)

    def remove(self, path: str) -> None:
        """Before."""
        self._step()
        super().remove(path)


@cache
def new() -> Image:
    """The agent of this version."""
    return made()


@cache
def old() -> Image:
    """An agent of another version: other files at the beginning, in the midst and at the end."""
    other = {
        "boardlet/__init__.mpy": "drivers",
        "boardlet_wire/topic.mpy": "boardlet_wire",
        "umqtt/simple.mpy": "drivers",
    }
    return {**new(), **{path: new()[f"{folder}/__init__.mpy"] for path, folder in other.items()}}


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[CortexMBoard]:
    """A blank one."""
    for module in (flash, info):
        monkeypatch.setattr(module, "image", made)
    try:
        with CortexMBoard(firmware()) as board:
            yield board
    except Missing as missing:
        pytest.skip(str(missing))


def look(device: Device, order: Order = ORDER) -> Plan:
    """What would be done."""
    return flash.plan(order, device, Identity(BOARD_ID, True, flash.configuration(device)))


def write(board: CortexMBoard, order: Order = ORDER, device: Device | None = None) -> Plan:
    """Flash it, and reset it."""
    with device or Device(board.port) as at:
        plan = look(at, order)
        flash.write(plan, at, lambda path, written: None)
    return plan


def on_flash(device: Device) -> set[str]:
    """Every file there but what the agent writes down."""
    return {path for path in device.walk() if not path.startswith("state/")}


def would_start(device: Device) -> Image | None:
    """The agent that main.py finds: the old one, the new one, {} for parts of them, None without main.py."""
    if not device.has(MAIN):
        return None
    found = device._value(FOUND.format(paths=sorted(inside(new()))))
    for agent in (old(), new()):
        if found == {path: flash.sha256(content) for path, content in inside(agent).items()}:
            return agent
    return {}


def mpremote(board: CortexMBoard, *words: str) -> str:
    """The unmodified command, as a user runs it."""
    command = [sys.executable, "-m", "mpremote", "connect", board.port, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mpremote(board: CortexMBoard, tmp_path: Path) -> None:
    """The unmodified command finds the partition, builds an image, deploys it, and the board mounts it at its start."""
    assert "has size 131072 bytes" in (said := mpremote(board, "romfs", "query"))
    assert "Not a valid ROMFS" in said
    (tmp_path / "of").mkdir()
    (tmp_path / "of/own.py").write_text("x = 7\n")
    for content in ("x = 7\n", "x = 8\n"):  # the second time over what the first has left
        (tmp_path / "of/own.py").write_text(content)
        assert "image deployed" in mpremote(board, "romfs", "deploy", str(tmp_path / "of"))
    mpremote(board, "romfs", "build", str(tmp_path / "of"))
    assert "ROMFS image size" in mpremote(board, "romfs", "query")
    assert mpremote(board, "exec", "import own; print(own.x, own.__file__)").strip() == "8 /rom/own.mpy"
    with Device(board.port) as device:
        built = (tmp_path / "of.romfs").read_bytes()
        assert device.rom_sha256(len(built)) == flash.sha256(built)


def test_flash_is_written_as_flash(board: CortexMBoard) -> None:
    """What was not erased cannot be written: bits are cleared, none is set, and no half words are taken."""
    with Device(board.port) as device:
        device._run("import vfs; m = vfs.rom_ioctl(2, 0); c = vfs.rom_ioctl")
        assert device._value("print(c(1), c(3, 0, 5), c(3, 0, 131073), c(3, 1, 4), c(6, 0), sep=',')") == (
            1,
            4,
            -22,
            -22,
            -22,
        )
        assert device._value("print((m[4095], m[4096], c(4, 0, 0, b'\\xf0123'), bytes(m[:4])))") == (
            255,
            0,
            0,
            b"\xf0123",
        )
        assert device._value("print((c(4, 0, 0, b'\\x0fABC'), bytes(m[:4])))") == (0, b"\0\x01\x02\x03")
        assert device._value("print((c(4, 0, 0, b'odd'), c(4, 0, 2, b'even'), c(4, 0, 131072, b'even')))") == (
            -22,
            -22,
            -22,
        )


def test_an_agent_goes_into_romfs(board: CortexMBoard) -> None:
    """main.py and the configuration are all that lies on the flash; the agent starts; again there is nothing to do."""
    plan = write(board)
    assert (set(plan.write), plan.remove) == ({MAIN}, ())
    assert (
        _way(plan.way)
        == f"the agent goes into ROMFS: its ROMFS partition of 131072 bytes has room for {len(romfs(inside(new())))}"
    )
    with Device(board.port) as device:
        assert on_flash(device) == {MAIN, "config.json"}
        assert would_start(device) == new()
        again = look(device)
        assert (again.write, again.remove, again.config_changes, again.stops) == ({}, (), False, False)
        assert again.way.rom is not None
        assert again.way.rom.right
        facts: dict[str, Any] = {}
        problems: list[str] = []
        info._of_board(device, facts, problems)
        assert (facts["agent"], problems) == (f"{flash.VERSION} in its ROMFS", [])


def test_the_command(board: CortexMBoard, tmp_path: Path) -> None:
    """A plan says where the agent would go, to a program too; the command writes it, and what lies beside it."""
    try:
        kubectl = programs.find().kubectl
    except Missing as missing:
        pytest.skip(str(missing))
    server = {"name": "nobody", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}
    context = {"name": "nobody", "context": {"cluster": "nobody"}}
    (tmp_path / "kubeconfig").write_text(  # nobody to tell that the board has asked to come in
        json.dumps({"clusters": [server], "contexts": [context], "current-context": "nobody"})
    )
    (tmp_path / "root.key").write_text("00" * 32)
    env = {**os.environ, "PATH": f"{kubectl.parent}:{os.environ['PATH']}", "KUBECONFIG": str(tmp_path / "kubeconfig")}
    with socket.create_server(("127.0.0.1", 0)) as broker:
        command = [sys.executable, "-m", "boardlet_cli.main", "flash", board.port, "--claim", "--wait-s", "1"]
        command += ["--broker", f"127.0.0.1:{broker.getsockname()[1]}", "--root-key", str(tmp_path / "root.key")]
        plan, done = (
            subprocess.run([*command, *more], env=env, capture_output=True, text=True, timeout=60, check=False)
            for more in (["--dry-run", "--json"], [])
        )
    facts = json.loads(plan.stdout.splitlines()[0])
    room = f"its ROMFS partition of 131072 bytes has room for {len(romfs(inside(new())))}"
    assert (facts["romfs"], facts["way"]) == ({"bytes": len(romfs(inside(new()))), "write": True}, room)
    assert done.returncode == 7, done.stdout + done.stderr
    assert f"the agent goes into ROMFS: {room}" in done.stdout
    assert "writing the agent into ROMFS, and 3 files beside it" in done.stdout
    assert "ROMFS and each file checked by its SHA-256" in done.stdout
    assert "the board is flashed, but nobody can tell whether it asks" in done.stderr
    with Device(board.port) as device:
        assert would_start(device) == new()
        assert on_flash(device) == {MAIN, "config.json", "enrol/__init__.mpy", "enrol/claim.mpy"}


def test_heap(board: CortexMBoard) -> None:
    """Its bytecode runs where it lies: the agent takes less than half of the heap that its .mpy files take."""
    taken = {}
    for order in (ORDER, replace(ORDER, romfs=False)):
        write(board, order)
        with Device(board.port) as device:
            name, taken[order.romfs] = device._value(HEAP)
            assert name.startswith("/rom/") == order.romfs
    with CortexMBoard(firmware(frozen=True)) as other, Device(other.port) as device:
        _, frozen = device._value(HEAP)
    print(f"heap that the agent takes: {frozen} B frozen, {taken[True]} B in ROMFS, {taken[False]} B in .mpy files")
    assert frozen < taken[True] < taken[False] / 2


def test_from_files_to_romfs_cut_anywhere(board: CortexMBoard) -> None:
    """The old agent runs until the new one is verified, then none until it is whole; each next flash goes on."""
    with Device(board.port) as device:
        for path, content in {**old(), "app.py": b"", "drivers/gone.mpy": b""}.items():
            device.put(path, content)
    seen = []
    for at in (3, 9, 10, 20, 22, 10**6):
        try:
            write(board, device=Cutting(board.port, at))
        except Cut:
            assert at < 10**6
        with Device(board.port) as device:
            seen.append(would_start(device))
    assert [old(), None, new()] == [agent for n, agent in enumerate(seen) if n == 0 or agent != seen[n - 1]], "no parts"
    with Device(board.port) as device:
        assert on_flash(device) == {MAIN, "config.json", "app.py"}
        assert look(device).write == {}


def test_an_older_agent_in_romfs_is_replaced(board: CortexMBoard) -> None:
    """Cut anywhere the board starts the old agent, the new one, or none, and flashed again it has the new one."""
    with Device(board.port) as device:
        device.deploy(romfs(inside(old())))
        device.put(MAIN, old()[MAIN])
        assert would_start(device) == old()
        problems: list[str] = []
        info._of_board(device, {}, problems)
        assert any("not that of this version" in problem for problem in problems)
    seen = []
    for at in (0, 2, 5, 9, 10**6):
        try:
            write(board, device=Cutting(board.port, at))
        except Cut:
            assert at < 10**6
        with Device(board.port) as device:
            seen.append(would_start(device))
    assert [old(), None, new()] == [agent for n, agent in enumerate(seen) if n == 0 or agent != seen[n - 1]], "no parts"


def test_from_romfs_to_files_cut_anywhere(board: CortexMBoard) -> None:
    """Files would hide half of an agent in ROMFS, so that none starts until they are whole."""
    with Device(board.port) as device:
        device.deploy(romfs(inside(old())))
        device.put(MAIN, old()[MAIN])
    order, seen = replace(ORDER, romfs=False), []
    for at in (0, 12, 10**6):
        try:
            write(board, order, Cutting(board.port, at))
        except Cut:
            assert at < 10**6
        with Device(board.port) as device:
            seen.append(would_start(device))
    assert seen == [old(), None, new()]


def test_a_partition_that_is_too_small(board: CortexMBoard) -> None:
    """The agent goes onto the flash in files, as on a board without a partition, and the plan says why."""
    with Device(board.port) as device:
        device.put("boot.py", SMALL.encode())
    with Device(board.port) as device:
        plan = look(device)
    assert (set(plan.write), plan.way.rom) == (set(new()), None)
    words = f"its ROMFS partition of 4096 bytes is too small for {len(romfs(inside(new())))}"
    assert _way(plan.way) == f"the agent goes onto the flash in .mpy files: {words}"


@pytest.mark.parametrize(
    ("boot", "error", "words"),
    [
        (LOCKED, DeviceError, r"does not hold what was written to it.*--no-romfs does without it"),
        ("import vfs; vfs.umount('/rom')", FlashFailed, r"does not start with its ROMFS mounted.*--no-romfs"),
    ],
    ids=["locked", "not mounted"],
)
def test_a_partition_that_does_not_do(board: CortexMBoard, boot: str, error: type[Exception], words: str) -> None:
    """A failed write, which mpremote does not notice, or none that is mounted: told, and the agent of before stays."""
    before = {**{f"{folder}/a.py": b"" for folder in FOLDERS}, MAIN: b"x"}
    with Device(board.port) as device:
        for path, content in {**before, "boot.py": boot.encode()}.items():
            device.put(path, content)
    with pytest.raises(error, match=words):
        write(board)
    with Device(board.port) as device:
        assert on_flash(device) == {*before, "boot.py"}
        assert device.read(MAIN) == b"x"
        plan = look(device, replace(ORDER, romfs=False))
        assert (set(plan.write), plan.way.why) == (set(new()), "--no-romfs asks for that")


def test_what_is_a_sites_stays(board: CortexMBoard, tmp_path: Path) -> None:
    """A ROMFS that holds other files is not written to or erased, and a file that would hide the agent stays."""
    with Device(board.port) as device:
        device.put("drivers/own.txt", b"somebody's")
        assert "drivers/own.txt on its flash would hide" in look(device).way.why
        device.remove("drivers/own.txt")
        device.deploy(content := romfs({"own.txt": b"somebody's", **inside(old())}))
        plan = look(device)
        assert (plan.way.rom, plan.way.why) == (None, "its ROMFS holds own.txt, which is not Boardlet's")
        assert plan.stops, "an agent is in it all the same"
        backup._remove(device)
        assert device.rom_sha256(len(content)) == flash.sha256(content)


def test_backup_restore_erase(board: CortexMBoard, tmp_path: Path) -> None:
    """A backup says what it does not hold, and is not put back where that is missing; erase takes the agent along."""
    write(board)
    command = [sys.executable, "-m", "boardlet_cli.main"]
    words = {
        "backup": ["backup", board.port, "-o", str(tmp_path / "tar")],
        "restore": ["restore", str(tmp_path / "tar"), board.port, "--yes"],
        "erase": ["erase", board.port, "--yes"],
    }
    said = {}
    for name in ("backup", "restore", "erase", "restore"):
        done = subprocess.run([*command, *words[name]], capture_output=True, text=True, timeout=60, check=False)
        said[name] = done.stdout + done.stderr
        with Device(board.port) as device:
            gone = name == "erase" or "erase" in said
            assert bool(device.rom_files()) != gone
            assert on_flash(device) == (set() if gone else {MAIN, "config.json"})
    assert "in the board's ROMFS, which the tar does not hold" in said["backup"]
    assert f"removed {len(new()) + 1}" in said["erase"]
    assert "is of a board with its agent in ROMFS" in said["restore"]
