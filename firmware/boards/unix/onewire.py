# A simulated 1-Wire bus with DS18B20 on it: reset and presence, ROM commands, a conversion of 750 ms, scratchpads with
# their CRC. Takes the place of MicroPython's onewire, whose interface this is.
import time
from binascii import hexlify

from devices import crc8_dallas
from pinfile import PinFile


class OneWireError(Exception):
    pass


class OneWire:
    def __init__(self, pin):
        self.file = PinFile("onewire%d" % pin.id)
        self.results = {}  # scratchpad's temperature by ROM code; none: the 85 degrees of a chip that has just begun
        self.begun = None
        self.command = None
        self.rom = None
        self.out = b""

    def _sensors(self):
        # {ROM code: words}
        lines = (self.file.text() or "").split("\n")
        return {words[0]: words[1:] for words in (line.split() for line in lines) if len(words) > 1}

    def reset(self, required=False):
        self.command = self.rom = None
        self.out = b""
        found = bool(self._sensors())
        if not found:
            self.results = {}
            self.begun = None
            if required:
                raise OneWireError
        return found

    def _settle(self):
        if self.begun is not None and time.ticks_diff(time.ticks_ms(), self.begun) >= 750:
            self.begun = None
            self.results = {rom: round(float(words[0]) * 16) for rom, words in self._sensors().items()}

    def writebyte(self, value):
        if self.command == 0x55 and len(self.rom) < 16:
            self.rom += hexlify(bytes((value,))).decode()
            return
        if self.command is None and value in (0x55, 0xCC):
            self.command = value
            self.rom = "" if value == 0x55 else None
        elif value == 0x44:
            self.begun = time.ticks_ms()
        elif value == 0xBE:
            self._settle()
            self.out = self._scratchpad()

    def _scratchpad(self):
        sensors = self._sensors()
        if self.rom is not None:
            sensors = {rom: words for rom, words in sensors.items() if rom == self.rom}
        answers = []
        for rom, words in sensors.items():
            n = self.results.get(rom)
            raw = bytes(((n or 0) & 255, (n or 0) >> 8 & 255, 0x4B, 0x46, 0x7F, 0xFF, 16 - (n or 0) % 16, 0x10))
            if n is None:
                raw = b"\x50\x05\x4b\x46\x7f\xff\x0c\x10"
            answers.append(raw + bytes((crc8_dallas(raw) ^ ("badcrc" in words),)))
        # Open drain: who sends a zero wins, so that sensors that answer together garble each other.
        out = bytearray(b"\xff" * 9)
        for answer in answers:
            for i in range(9):
                out[i] &= answer[i]
        return bytes(out)

    def write(self, buf):
        for byte in buf:
            self.writebyte(byte)

    def readinto(self, buf):
        for i in range(len(buf)):
            buf[i] = self.out[i] if i < len(self.out) else 0xFF

    def crc8(self, data):
        return crc8_dallas(data)
