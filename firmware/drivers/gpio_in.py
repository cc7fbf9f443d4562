# A pin that is read.
from machine import Pin


class Driver:
    def __init__(self, spec):
        pull = (None, Pin.PULL_UP, Pin.PULL_DOWN)[spec.get(3, 0)]
        self.inverted = spec.get(2, False)
        self.pin = Pin(spec[1][0], Pin.IN, pull)

    def read(self):
        return bool(self.pin.value()) != self.inverted
