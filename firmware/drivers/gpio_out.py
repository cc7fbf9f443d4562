# A pin that is switched; reads back what the pin has.
from machine import Pin


class Driver:
    def __init__(self, spec):
        self.inverted = spec.get(2, False)
        # Without a value: a reboot of the board does not move what hangs on the pin before it is told to.
        self.pin = Pin(spec[1][0], Pin.OUT)

    def set(self, value):
        self.pin.value(value != self.inverted)

    def read(self):
        return bool(self.pin.value()) != self.inverted

    def close(self):
        self.pin.init(Pin.IN)  # nobody is responsible for its level any more
