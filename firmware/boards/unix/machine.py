# The hardware of a virtual board: pins are files of a folder ($BOARDLET_PINS), so that people and tests can watch and
# turn them. pin2 holds "0" or "1", adc34 a number from 0 to 65535. With $BOARDLET_PIN_UDP set, each change of an output
# is also sent as a datagram "2 1" to that port on loopback.
#
# A reset ends the process with code 42, a watchdog that was fed too late with 43, the way into the bootloader with 44;
# whoever started it starts it again, and says why in $BOARDLET_RESET_CAUSE, as a chip's register would.
import os
import sys
import time

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_FOLDER = os.getenv("BOARDLET_PINS") or "pins"
_UDP = os.getenv("BOARDLET_PIN_UDP")


def _tell(text):
    import socket

    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(text, socket.getaddrinfo("127.0.0.1", int(_UDP))[0][-1])
    s.close()


class _File:
    def __init__(self, name):
        self.path = _FOLDER + "/" + name
        self.file = None

    def read(self):
        try:
            with open(self.path) as f:
                return int(f.read() or 0)
        except (OSError, ValueError):
            return None

    def write(self, n):
        # In place: a reader sees the old or the new digit, never an empty file.
        if self.file is None:
            try:
                self.file = open(self.path, "r+b")
            except OSError:
                self.file = open(self.path, "wb")
        self.file.seek(0)
        self.file.write(str(n).encode())
        self.file.flush()


class Pin:
    IN = 0
    OUT = 1
    OPEN_DRAIN = 2
    PULL_UP = 1
    PULL_DOWN = 2

    def __init__(self, id, mode=-1, pull=-1, value=None):
        self.id = id
        self.mode = mode
        self.pull = pull
        self.file = _File("pin%d" % id)
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
        self.file = _File("adc%d" % (pin.id if isinstance(pin, Pin) else pin))

    def read_u16(self):
        return self.file.read() or 0


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


def bootloader():
    sys.exit(44)


def reset_cause():
    return int(os.getenv("BOARDLET_RESET_CAUSE") or PWRON_RESET)


def unique_id():
    return b"virtual"


def freq():
    return 0
