# The board's flash: 1 MB of RAM that a reset does not clear, with littlefs on it.
import uctypes
import vfs

_SIZE = 4096
_BLOCKS = 256


class Flash:
    def __init__(self):
        self.ram = uctypes.bytearray_at(0x21000000, _SIZE * _BLOCKS)

    def readblocks(self, n, buf, off=0):
        start = n * _SIZE + off
        buf[:] = memoryview(self.ram)[start : start + len(buf)]

    def writeblocks(self, n, buf, off=0):
        start = n * _SIZE + off
        self.ram[start : start + len(buf)] = buf

    def ioctl(self, op, arg):
        if op == 4:
            return _BLOCKS
        if op == 5:
            return _SIZE
        if op == 6:
            return 0


try:
    vfs.mount(vfs.VfsLfs2(Flash()), "/")
except OSError:
    vfs.VfsLfs2.mkfs(Flash())
    vfs.mount(vfs.VfsLfs2(Flash()), "/")
