# An analogue input: raw (0 to 65535) x scale + offset.
from machine import ADC, Pin


class Driver:
    def __init__(self, spec):
        self.scale = spec.get(4, 1)
        self.offset = spec.get(5, 0)
        self.adc = ADC(Pin(spec[1][0]))

    def read(self):
        return self.adc.read_u16() * self.scale + self.offset
