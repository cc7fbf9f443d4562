# A serial line, 8N1: sends what it is set to, or reads the last line that came.
from machine import UART, Pin

from drivers.conversion import give, take

_LINE = 128  # the longest value that a model allows


def port(spec):
    tx, rx = spec[1]
    return UART(spec[8], baudrate=spec.get(11, 9600), tx=Pin(tx), rx=Pin(rx), rxbuf=512, txbuf=256)


class Driver:
    def __init__(self, spec):
        self.key = ("uart", spec[8])
        self.uart = take(self.key, port, spec)
        self.binary = spec.get(12)
        self.sends = spec.get(13)
        self.line = None
        self.rest = b""

    def set(self, value):
        # Bytes as they are; text is a line.
        self.uart.write(value if self.binary else value.encode() + b"\n")
        self.line = value

    def read(self):
        if self.sends:
            return self.line
        n = self.uart.any()
        if n:
            *lines, rest = (self.rest + self.uart.read(n)).split(b"\n")
            if lines:
                self.line = lines[-1]
            self.rest = rest[-_LINE - 1 :]  # a line that is too long stays too long
        if self.line is None or self.binary:
            return self.line
        return str(self.line, "utf-8").rstrip("\r")

    def close(self):
        uart = give(self.key)
        if uart:
            uart.deinit()
