# A sensor on an I2C bus. The bus is driven by software: any two pins will do, and none has to be freed.
from machine import Pin, SoftI2C

from drivers.conversion import Conversion, give, take


class Sensor(Conversion):
    def __init__(self, spec, ms, commands, size):
        super().__init__(ms)
        scl, sda = spec[1]
        self.i2c = SoftI2C(scl=Pin(scl), sda=Pin(sda), freq=100000)
        self.address = spec[9]
        self.commands = commands
        self.size = size

    def start(self):
        for command in self.commands:
            self.i2c.writeto(self.address, command)

    def fetch(self):
        return self.i2c.readfrom(self.address, self.size)


class I2cDriver:
    def __init__(self, spec, ms, commands, size):
        self.key = (spec[1][0], spec[9])
        self.sensor = take(self.key, Sensor, spec, ms, commands, size)

    def close(self):
        give(self.key)
