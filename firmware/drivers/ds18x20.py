# DS18B20, DS1822 and DS18S20 on a 1-Wire pin, with a supply of their own: temperature in degrees Celsius.
from machine import Pin
from onewire import OneWire

from drivers.conversion import Conversion, give, take


class Bus(Conversion):
    def __init__(self, pin):
        super().__init__(750)
        self.wire = OneWire(Pin(pin))

    def start(self):
        # All sensors of the bus measure at once.
        self.wire.reset(True)
        self.wire.writebyte(0xCC)
        self.wire.writebyte(0x44)

    def fetch(self):
        return True


class Driver:
    def __init__(self, spec):
        self.pin = spec[1][0]
        self.rom = spec.get(9)
        self.bus = take(self.pin, Bus, self.pin)

    def read(self):
        if not self.bus.get():
            return None
        wire = self.bus.wire
        wire.reset(True)
        if self.rom:
            wire.writebyte(0x55)
            wire.write(self.rom)
        else:
            wire.writebyte(0xCC)
        wire.writebyte(0xBE)
        raw = bytearray(9)
        wire.readinto(raw)
        # A bus that is shorted reads nothing but zeros, whose CRC is right.
        if wire.crc8(raw) or not raw[7]:
            raise ValueError("wrong CRC")
        n = raw[1] << 8 | raw[0]
        n -= (n & 0x8000) << 1
        if raw[4] == 0xFF:  # a DS18S20: half degrees, and how far the next one was
            return (n >> 1) - 0.25 + (16 - raw[6]) / 16
        if n == 0x550 and raw[6] == 0x0C:
            raise ValueError("lost its supply while it measured")  # the 85 degrees that it begins with
        return n / 16

    def close(self):
        give(self.pin)
