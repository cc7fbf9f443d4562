# The one writer of flash. Each name has two files, written in turn: sequence, CRC-32, bytes. A power cut tears at most
# the file being written, and the other one holds what was there before; this needs nothing of the file system but that
# a file which is not being written stays whole, so it is right on FAT as well as on littlefs.
import os
import struct
from binascii import crc32

# A file: 12 bytes of head (b"BL", 2 reserved bytes, sequence, CRC-32), then what it holds.


class Store:
    def __init__(self, folder):
        self.folder = folder
        try:
            os.mkdir(folder)
        except OSError:
            pass  # it is there

    def _path(self, name, slot):
        return self.folder + "/" + name + "ab"[slot]

    def _read(self, name, slot):
        # (sequence, bytes), sequence 0 where there is nothing whole.
        try:
            with open(self._path(name, slot), "rb") as f:
                raw = f.read()
        except OSError:
            return 0, None
        if len(raw) < 12 or raw[:2] != b"BL":
            return 0, None
        seq, crc = struct.unpack_from(">II", raw, 4)
        if crc32(memoryview(raw)[12:], seq & 0xFFFF) & 0xFFFFFFFF != crc:
            return 0, None
        return seq, raw[12:]

    def _newest(self, name):
        a, b = self._read(name, 0), self._read(name, 1)
        return (0, a) if a[0] >= b[0] else (1, b)

    def get(self, name):
        return self._newest(name)[1][1]

    def put(self, name, data):
        slot, (seq, old) = self._newest(name)
        if old == data:
            return
        seq = seq % 0x3FFFFFFF + 1
        head = struct.pack(">2sHII", b"BL", 0, seq, crc32(data, seq & 0xFFFF) & 0xFFFFFFFF)
        with open(self._path(name, 1 - slot if old is not None else slot), "wb") as f:
            f.write(head)
            f.write(data)

    def drop(self, name):
        for slot in (0, 1):
            try:
                os.remove(self._path(name, slot))
            except OSError:
                pass  # it was not there

    def names(self):
        return {name[:-1] for name in os.listdir(self.folder)}
