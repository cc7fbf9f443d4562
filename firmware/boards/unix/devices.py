# Simulated chips on I2C and 1-Wire: real frames with real check sums, and the time that the real ones take. What they
# measure is in files (pinfile.py).
import time

from pinfile import PinFile

_ENODEV = 19
_EIO = 5


def crc8_sensirion(data):
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return crc


def crc8_dallas(data):
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8C if crc & 1 else crc >> 1
    return crc


class Chip:
    # measured() gives the words of its file; a chip without one does not acknowledge its address.
    def __init__(self, name):
        self.file = PinFile(name)
        self.begun = None

    def measured(self):
        text = self.file.text()
        if not text:
            self.begun = None
            raise OSError(_ENODEV)
        return text.split()

    def busy(self, ms):
        return self.begun is not None and time.ticks_diff(time.ticks_ms(), self.begun) < ms


class Sht3x(Chip):
    def write(self, data):
        self.measured()
        if self.busy(15):
            raise OSError(_EIO)
        if data == b"\x24\x00":
            self.begun = time.ticks_ms()

    def read(self, n):
        words = self.measured()
        if self.begun is None or self.busy(15):
            raise OSError(_EIO)  # it acknowledges nothing before it has a result
        self.begun = None
        out = bytearray()
        for share in ((float(words[0]) + 45) / 175, float(words[1]) / 100):
            raw = min(65535, max(0, round(share * 65535)))
            word = bytes((raw >> 8, raw & 255))
            out.extend(word)
            out.append(crc8_sensirion(word) ^ ("badcrc" in words))
        return bytes(out[:n])


class Bh1750(Chip):
    raw = 0
    on = False

    def write(self, data):
        self.measured()
        if data == b"\x01":
            self.on = True
        elif data == b"\x20" and self.on:
            self.begun = time.ticks_ms()

    def read(self, n):
        words = self.measured()
        if self.begun is not None and not self.busy(180):
            self.raw = min(65535, round(float(words[0]) * 1.2))
            self.begun = None
            self.on = False
        return bytes((self.raw >> 8, self.raw & 255))[:n]


I2C = {0x44: Sht3x, 0x45: Sht3x, 0x23: Bh1750, 0x5C: Bh1750}
_chips = {}


def on_i2c(scl, address):
    # The chip at an address; it is the same one whoever asks.
    key = (scl, address)
    if key not in _chips:
        if address not in I2C:
            raise OSError(_ENODEV)
        _chips[key] = I2C[address]("i2c%d-0x%02x" % key)
    return _chips[key]
