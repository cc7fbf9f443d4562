# The radio: joins the configured network and joins it again, without ever blocking. Boards without one are always up.
from micropython import const

from boardlet.ticks import add, diff

_JOIN_MS = const(20000)
_RADIO_MS = const(900000)


class Net:
    def __init__(self, cfg):
        self.wlan = None
        self.wifi = cfg.get("wifi")
        if self.wifi:
            import network

            self.wlan = network.WLAN(network.STA_IF)
        self.until = None
        self.down_at = None  # when it was first missed

    def ready(self, now):
        # Whether there is a network now; asks for one where there is none.
        if not self.wlan:
            return True
        if self.wlan.isconnected():  # status() lies on ESP32
            self.down_at = self.until = None  # not now: it is not asked again before the connection has ended
            return True
        if self.down_at is None:
            self.down_at = now
        if self.until is None or diff(now, self.until) >= 0:
            if diff(now, self.down_at) >= _RADIO_MS:
                self.down()
                self.down_at = now
            self.wlan.active(True)
            try:
                self.wlan.connect(*self.wifi)
            except OSError:
                pass  # it is still trying the last time
            self.until = add(now, _JOIN_MS)
        return False

    def down(self):
        # After five failures in a row at the broker: an association that looks well may carry nothing.
        if self.wlan:
            self.wlan.disconnect()
            self.wlan.active(False)
            self.until = None
