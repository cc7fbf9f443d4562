# A sensor that takes its time: a measurement is started, and fetched when it is ready; the loop goes on meanwhile.
# Properties that name the same sensor or bus share one of these, so that they do not disturb each other.
import time

_FRESH_MS = 100  # what one property fetched is good for the others
_held = {}


def take(key, make, *args):
    # What is behind key, made by the first who takes it.
    held = _held.get(key)
    if held is None:
        held = _held[key] = [make(*args), 0]
    held[1] += 1
    return held[0]


def give(key):
    # Returns it when nobody holds it any more.
    held = _held[key]
    held[1] -= 1
    if not held[1]:
        return _held.pop(key)[0]


class Conversion:
    def __init__(self, ms):
        self.ms = ms
        self.begun = None
        self.data = None
        self.at = 0

    def get(self):
        # What was measured last, if it is fresh; None while it is being measured. Raises what start and fetch raise.
        now = time.ticks_ms()
        if self.begun is None:
            if self.data is None or time.ticks_diff(now, self.at) > _FRESH_MS:
                self.data = None
                self.start()
                self.begun = now
        elif time.ticks_diff(now, self.begun) >= self.ms:
            self.begun = None
            self.data = self.fetch()
            self.at = now
        return self.data
