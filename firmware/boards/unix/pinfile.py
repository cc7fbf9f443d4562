# The world around a virtual board: files of a folder ($BOARDLET_PINS), so that people and tests can watch and turn it.
#
#   pin2              0 or 1                       echo 1 > pins/pin2
#   adc34             0 to 65535
#   pwm5              frequency in Hz, duty cycle from 0 to 65535; no file while nothing drives the pin
#   i2c22-0x44        a SHT3x at that address, on the bus whose SCL is pin 22: degrees Celsius, per cent
#   i2c22-0x23        a BH1750: lux
#   onewire4          a line for each DS18B20 on the pin: its ROM code and degrees Celsius
#   uart1.tx          what the board has sent;     uart1.rx    what is appended comes to the board
#   rtc               what the clock was set to last, as machine.RTC takes it
#   sleep             for how many seconds the board went to sleep last
#
# A sensor without a file is not there. The word "badcrc" behind its values makes it answer with a wrong check sum.
import os

FOLDER = os.getenv("BOARDLET_PINS") or "pins"


class PinFile:
    def __init__(self, name):
        self.path = FOLDER + "/" + name

    def text(self):
        # None where there is no file.
        try:
            with open(self.path) as f:
                return f.read()
        except OSError:
            return None

    def read(self):
        # A number, None where there is none.
        text = self.text()
        try:
            return None if text is None else int(text or 0)
        except ValueError:
            return None

    def write(self, value):
        # In place: a reader sees the old or the new digit, never an empty file.
        try:
            file = open(self.path, "r+b")
        except OSError:
            file = open(self.path, "wb")
        file.write(str(value).encode())
        file.close()

    def remove(self):
        try:
            os.remove(self.path)
        except OSError:
            pass  # it was not there
