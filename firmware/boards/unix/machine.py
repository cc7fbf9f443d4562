# The hardware of a virtual board: pins and what hangs on them are files (pinfile.py). With $BOARDLET_PIN_UDP set, each
# change of an output is also sent as a datagram "2 1" to that port on loopback.
#
# A reset ends the process with code 42, a watchdog that was fed too late with 43, the way into the bootloader with 44,
# deep sleep with 45, for so many seconds as the file `sleep` says; whoever started it starts it again, and says why in
# $BOARDLET_RESET_CAUSE, as a chip's register would.
import os
import sys
import time

from pinfile import PinFile

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_UDP = os.getenv("BOARDLET_PIN_UDP")


_told = []  # the socket and where it sends to, from the first change on


def _tell(text):
    if not _told:
        import socket

        to = socket.getaddrinfo("127.0.0.1", int(_UDP))[0][-1]
        _told.extend((socket.socket(socket.AF_INET, socket.SOCK_DGRAM), to))
    _told[0].sendto(text, _told[1])


class Pin:
    IN = 0
    OUT = 1
    OPEN_DRAIN = 2
    PULL_UP = 1
    PULL_DOWN = 2

    def __init__(self, id, mode=-1, pull=-1, value=None):
        self.id = id
        self.file = PinFile("pin%d" % id)
        self.init(mode, pull, value)

    def init(self, mode=-1, pull=-1, value=None):
        self.mode = mode
        self.pull = pull
        if mode == self.OUT:
            if value is not None:
                self.value(value)
            elif self.file.read() is None:
                self.file.write(0)

    def value(self, x=None):
        if x is None:
            n = self.file.read()
            return int(self.pull == self.PULL_UP) if n is None else n
        before = self.file.read()
        self.file.write(int(bool(x)))
        if _UDP and before != int(bool(x)):
            _tell("%d %d" % (self.id, bool(x)))

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)


class ADC:
    def __init__(self, pin):
        self.file = PinFile("adc%d" % (pin.id if isinstance(pin, Pin) else pin))

    def read_u16(self):
        return self.file.read() or 0


class PWM:
    def __init__(self, pin, freq=1000, duty_u16=0):
        self.file = PinFile("pwm%d" % pin.id)
        self._freq = freq
        self.file.remove()  # a former frequency may have been longer
        self.duty_u16(duty_u16)

    def duty_u16(self, value=None):
        # As a timer of 14 bits resolves it, so that what is read back is not what was set.
        if value is None:
            return int((self.file.text() or "0 0").split()[1])
        self.file.write("%d %05d" % (self._freq, value >> 2 << 2 if value < 65535 else value))

    def deinit(self):
        self.file.remove()


class SoftI2C:
    def __init__(self, scl, sda, freq=400000):
        self.scl = scl.id

    def _chip(self, address):
        from devices import on_i2c

        return on_i2c(self.scl, address)

    def writeto(self, address, buf, stop=True):
        self._chip(address).write(bytes(buf))
        return len(buf)

    def readfrom(self, address, n, stop=True):
        return self._chip(address).read(n)


class UART:
    def __init__(self, id, baudrate=9600, tx=None, rx=None, rxbuf=256, txbuf=256):
        self.sent = PinFile("uart%d.tx" % id)
        self.received = PinFile("uart%d.rx" % id)
        self.rxbuf = rxbuf
        self.at = self._size()  # what came before was for nobody

    def _size(self):
        try:
            return os.stat(self.received.path)[6]
        except OSError:
            return 0

    def any(self):
        size = self._size()
        if size < self.at:
            self.at = 0  # somebody began the file anew
        return min(size - self.at, self.rxbuf)

    def read(self, n):
        with open(self.received.path, "rb") as f:
            f.seek(self.at)
            data = f.read(n)
        self.at += len(data)
        return data

    def write(self, buf):
        with open(self.sent.path, "ab") as f:
            f.write(buf)
        return len(buf)

    def deinit(self):
        pass


class RTC:
    # What it was set to is a file; the clock itself is the host's.
    def datetime(self, when):
        file = PinFile("rtc")
        file.remove()
        file.write(when)


class WDT:
    def __init__(self, id=0, timeout=5000):
        self.timeout = timeout
        self.fed = time.ticks_ms()

    def feed(self):
        # The process cannot be stopped from outside itself, so that the late one notices at its next feed.
        now = time.ticks_ms()
        if time.ticks_diff(now, self.fed) > self.timeout:
            sys.exit(43)
        self.fed = now


def reset():
    sys.exit(42)


def deepsleep(ms):
    file = PinFile("sleep")
    file.remove()
    file.write("%d.%03d" % (ms // 1000, ms % 1000))
    sys.exit(45)


def bootloader():
    sys.exit(44)


def reset_cause():
    return int(os.getenv("BOARDLET_RESET_CAUSE") or PWRON_RESET)


def unique_id():
    return b"virtual"


def freq():
    return 0
