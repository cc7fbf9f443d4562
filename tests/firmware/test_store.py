"""The board's store keeps the old or the new value through a power cut at every write, on littlefs and on FAT."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from virtualboard import interpreter

FIRMWARE = Path(__file__).parents[2] / "firmware"
SCRIPT = """
import os, sys, vfs
sys.path.append(FIRMWARE)
from boardlet.store import Store
FS = {"lfs2": vfs.VfsLfs2, "fat": vfs.VfsFat}[sys.argv[1]]
TORN = sys.argv[2] == "torn"

class Cut(Exception):
    pass

class Disk:
    # RAM that loses power after `left` block writes: the next one is dropped, or half of it is written.
    def __init__(self, data=None):
        self.data = data or bytearray(512 * 128)
        self.left = -1
    def _gone(self, n, buf, at):
        if self.left < 0:
            return False
        if self.left > 0:
            self.left -= 1
            return False
        if TORN and buf and not self.torn:
            self.torn = True
            half = len(buf) // 2
            self.data[at : at + half] = buf[:half]
        raise OSError(5)
    torn = False
    def readblocks(self, n, buf, off=0):
        at = n * 512 + off
        buf[:] = self.data[at : at + len(buf)]
    def writeblocks(self, n, buf, off=0):
        at = n * 512 + off
        self._gone(n, buf, at)
        self.data[at : at + len(buf)] = buf
    def ioctl(self, op, arg):
        if op == 4:
            return 128
        if op == 5:
            return 512
        if op == 6:
            self._gone(arg, None, 0)
            return 0

def mounted(disk):
    vfs.mount(FS(disk), "/d")

disk = Disk()
FS.mkfs(disk)
mounted(disk)
store = Store("/d/state")
store.put("next", b"zero" * 40)
store.put("next", b"one" * 40)
vfs.umount("/d")
clean = bytes(disk.data)
cuts = 0
while True:
    disk = Disk(bytearray(clean))
    mounted(disk)
    store = Store("/d/state")
    disk.left = cuts
    done = True
    try:
        store.put("next", b"two" * 50)
    except OSError:
        done = False
    try:
        vfs.umount("/d")
    except OSError:
        done = False
    disk.left = -1
    after = Disk(bytearray(disk.data))
    mounted(after)
    store = Store("/d/state")
    got = store.get("next")
    if got not in ((b"two" * 50,) if done else (b"one" * 40, b"two" * 50)):
        print("FAILED at cut", cuts, done, got)
        sys.exit(1)
    store.put("next", b"three" * 30)
    if store.get("next") != b"three" * 30:
        print("FAILED to go on after cut", cuts)
        sys.exit(1)
    vfs.umount("/d")
    if done:
        break
    cuts += 1
print(cuts, "cuts")
"""


@pytest.mark.parametrize("torn", ["clean", "torn"])
@pytest.mark.parametrize("file_system", ["lfs2", "fat"])
def test_power_cut_at_every_write(file_system: str, torn: str, tmp_path: Path) -> None:
    """Whatever write the power cut hits, dropped or half done, the store has the old or the new value and goes on."""
    (tmp_path / "t.py").write_text(f"FIRMWARE = {str(FIRMWARE)!r}" + SCRIPT)
    command = [interpreter(), "-X", "heapsize=2M", "t.py", file_system, torn]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 3, "the cuts really happened"
