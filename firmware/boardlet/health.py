# Boots, crashes and safe mode. Each boot is counted before anything else may fail; four in a row that did not last mean
# safe mode: network and agent only, no drivers, no app, until it has lasted ten minutes and a normal boot is tried.
import sys
from io import StringIO

import machine
from boardlet_wire import cbor
from micropython import const

from boardlet.store import Store

_FAILED_BOOTS = const(4)
SAFE_S = const(600)


def trace(e):
    # Prints the traceback and returns its end.
    out = StringIO()
    sys.print_exception(e, out)
    text = out.getvalue()[-512:]
    print(text)
    return text


class Boot:
    def __init__(self):
        self.store = Store("state")
        raw = self.store.get("boot")
        # [boots, failed in a row, revision being tried, boots while trying it or -1: asleep, boot of the last crash]
        self.rec = cbor.loads(raw) if raw else [0, 0, 0, 0, 0]
        rec = self.rec
        # MicroPython's numbers are the protocol's, but that STM32 has 0 for a soft reset.
        cause = 4 if rec[3] < 0 else machine.reset_cause()
        self.cause = cause if 0 <= cause <= 5 else 0
        if self.cause == 1:
            self.store.drop("crash")
        elif rec[4] and rec[4] == rec[0]:
            self.cause = 6
        self.tries = 0
        self.safe = rec[1] >= _FAILED_BOOTS
        if cause == 4:  # woken: it has counted its boot, and lasted until it slept
            self.clear(3)
            return
        rec[0] += 1
        rec[1] = 0 if self.safe else rec[1] + 1
        raw = self.store.get("next")
        trying = cbor.loads(raw)[1] if raw else 0
        rec[3] = rec[3] + 1 if trying == rec[2] else 1
        rec[2] = trying
        self.tries = rec[3]
        self._write()

    def _write(self):
        try:
            self.store.put("boot", cbor.dumps(self.rec))
        except OSError as e:
            print("boot is not counted: %r" % e)  # a worn flash must not keep the board from running

    def clear(self, i, value=0):
        # 1: it has lasted, the next boots start from zero again.
        if self.rec[i] != value:
            self.rec[i] = value
            self._write()

    def sleep(self):
        # A turn that ends in order has lasted. RP2 cannot tell waking from a watchdog's reset: flash must.
        self.clear(1)
        self.clear(3, 0 if hasattr(machine, "DEEPSLEEP_RESET") else -1)

    def crash(self):
        raw = self.store.get("crash")
        return raw.decode() if raw else None

    def crashed(self, e):
        self.store.put("crash", trace(e).encode())
        self.rec[4] = self.rec[0]
        self._write()
