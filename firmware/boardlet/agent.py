# The loop: one poll on the socket until something arrives or the nearest deadline is there. What arrives is verified,
# kept, applied and answered in the same turn. The watchdog is fed here and nowhere else.
import gc
import os
import sys
import time

import machine
from boardlet_wire import cbor, seal
from boardlet_wire.topic import topic
from micropython import const

from boardlet import __version__, app, config
from boardlet.health import SAFE_S
from boardlet.link import Link
from boardlet.model import STRANGE
from boardlet.net import Net
from boardlet.ticks import add, diff
from boardlet.twin import Twin

_LIMIT = const(1024)  # the longest payload that is received
_WATCHDOG_MS = const(8000)
_TURN_MS = const(4000)  # the watchdog is fed twice as often as it needs
_MASK = const(0x3FFFFFFF)
_BACK_OFF_MAX_S = const(60)
_FAREWELL_S = const(5)
_FLUSH_MS = const(100)  # the radio goes off with the chip: the last packet needs a moment
_RADIO_FAILURES = const(5)
_UP = const(2)  # of a link; 0 is down


def ticks():
    return time.ticks_ms() & _MASK


def driver(spec):
    name = spec[0]
    return __import__("drivers." + name, None, None, (name,)).Driver(spec)


class Agent:
    def __init__(self, cfg, boot):
        self.cfg = cfg
        self.boot = boot
        self.prefix = topic(cfg["id"], "")
        self.link = Link(cfg, self.prefix, _LIMIT)
        self.link.on_message = self.received
        self.net = Net(cfg)
        self.down = seal.half_key(cfg["key"], seal.DOWN)
        self.up = seal.half_key(cfg["key"], seal.UP)
        self.twin = Twin(boot.store, _LIMIT, driver, None if boot.safe else app, self.say)
        self.twin.proven_ms = int(cfg.get("proven_s", 30) * 1000)
        self.stable_s = cfg.get("stable_s", 30)
        self.awake_s = cfg.get("awake_s", 20)  # at most, if it sleeps between its turns, network or not
        self.uptime = 0
        self.epoch = b""
        self.birth_due = self.asleep = False
        self.now = self.second = self.next_try = ticks()
        if boot.safe:
            self.twin.health = 1
        else:
            app.load()
        self.twin.boot(self.now, boot.tries)

    def say(self, level, text):
        if level <= self.twin.level:
            print(text)

    def turn(self):
        # One turn of the loop; returns the milliseconds that it may wait.
        now = self.now = ticks()
        while diff(now, self.second) >= 1000:
            self.second = add(self.second, 1000)
            self.uptime += 1
            if self.uptime == self.stable_s:
                self.boot.clear(1)
            if self.boot.safe and self.uptime >= SAFE_S:
                machine.reset()
        link, twin = self.link, self.twin
        ms = _TURN_MS
        try:
            if not link.state:
                if diff(now, self.next_try) >= 0 and self.net.ready(now):
                    self.connect(now)
            else:
                link.step(now)
            if not self.boot.safe:
                ms = min(ms, app.tick(now))
                twin.health = 2 if app.ill else 0
            twin.tick(now)
            if twin.switch:
                self.renew(now)
            if not self.asleep:
                self.speak(now)
            if link.state:
                link.flush(now)
            if twin.sleep_ms:
                self.rest(now)
        except OSError as e:
            self.lost(now, e)
        if not link.state:
            ms = min(ms, max(0, diff(self.next_try, now)) if self.net.ready(now) else 250)
        ms = min(ms, link.due(now), twin.due(now, link.free() and not self.birth_due))
        return ms

    def rest(self, now):
        # Sleeps when this turn is over: all is said and acknowledged, which also proves what is being tried; or the
        # time that it may be awake.
        link, twin = self.link, self.twin
        if link.state == _UP and not link.inflight and twin.done(now):
            twin.prove()
        elif not self.asleep and self.uptime < self.awake_s:
            return
        if not self.asleep:
            self.asleep = True
            self.boot.sleep()
            if link.state == _UP:
                link.send(now, "s", self.seal("s", self.session(2), b""), True)
        if link.inflight and self.uptime < self.awake_s + _FAREWELL_S:
            return
        link.quit(now)
        time.sleep_ms(_FLUSH_MS)
        machine.deepsleep(twin.sleep_ms)

    def connect(self, now):
        self.epoch = os.urandom(8)
        gc.collect()
        will = self.session(0)
        keepalive = max(5, min(60, self.twin.heartbeat_ms // 1000))
        self.twin.reset(now)
        self.birth_due = True
        self.link.open(now, keepalive, self.seal("s", will, b""))

    def lost(self, now, e):
        link = self.link
        link.close()
        link.failures += 1
        if link.failures % _RADIO_FAILURES == 0:
            self.net.down()
        most = 1000 * min(_BACK_OFF_MAX_S, 1 << min(link.failures, 6))
        wait = int.from_bytes(os.urandom(3), "big") % most
        self.next_try = add(now, wait)
        self.say(1, "broker: %r, again in %d ms" % (e, wait))

    def renew(self, now):
        # A switch of the model, or of the sequence's range: one epoch ends in good order, another begins.
        self.twin.switch = False
        if self.link.state == _UP:
            self.link.send(now, "s", self.seal("s", self.session(0), b""), True)
        self.link.quit(now)
        self.next_try = now

    def session(self, state):
        body = {0: 1, 1: state, 2: self.epoch, 3: self.cfg.get("key_number", 1)}
        if state == 1:
            boot, twin, impl = self.boot, self.twin, sys.implementation
            more = (
                boot.rec[0],
                boot.cause,
                __version__,
                sys.platform,
                getattr(impl, "_machine", "")[:64],
                getattr(impl, "_mpy", 0),
                "%d.%d.%d" % tuple(impl.version[:3]),
                _LIMIT,
                twin.model or None,
                app.digest,
                twin.applied,
                twin.refused,
                boot.crash() or app.crash,
                boot.safe,
            )
            for i, v in enumerate(more):
                if v is not None:
                    body[4 + i] = v
        elif state:
            body[18] = self.twin.sleep_ms // 1000
        return cbor.dumps(body)

    def seal(self, letter, body, context):
        return body + seal.tag(self.up, self.prefix + letter, context, body, seal.UP_TAG)

    def speak(self, now):
        link = self.link
        if self.birth_due and link.state == _UP:
            self.birth_due = False
            # In this order: the bridge answers a birth with a question, which must find the subscription there.
            link.listen(now, "dcf")
            link.send(now, "s", self.seal("s", self.session(1), b""), True)
        while link.free():
            said = self.twin.message(now, self.uptime)
            if not said:
                return
            link.send(now, said[0], self.seal(said[0], said[1], self.epoch))

    def received(self, letter, payload):
        twin = self.twin
        if payload is None:
            twin.counters[2] += 1
            if letter == "d":
                twin.refuse(0, b"", 2)
            return
        if not len(payload):
            return
        context = self.epoch if letter == "f" else b""
        body = seal.verify(self.down, self.prefix + letter, context, payload, seal.DOWN_TAG)
        if body is None:
            twin.counters[0] += 1
            return
        try:
            if letter == "d":
                twin.on_desired(self.now, body)
            elif letter == "f":
                twin.on_file(self.now, body)
            elif letter == "c":
                asked = twin.on_command(self.now, body)
                if asked == 1:
                    self.birth_due = True
                elif asked == 2:
                    try:
                        __import__("rotation").take(self, body)
                    except (ImportError, MemoryError):
                        pass  # a missing file is a missing feature
        except STRANGE:
            twin.counters[1] += 1


def run(boot):
    try:
        cfg = config.load()
    except (OSError, ValueError, KeyError) as e:
        print("no usable config.json (%r): run boardlet flash" % e)
        return
    agent = Agent(cfg, boot)
    wdt = machine.WDT(timeout=_WATCHDOG_MS) if cfg.get("watchdog", True) else None
    while True:
        if wdt:
            wdt.feed()
        agent.link.wait(agent.turn())
