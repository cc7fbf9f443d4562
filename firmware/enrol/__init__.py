# Enrolment: a board that has only its site's claim asks for an identity of its own (PROTOCOL.md section 12).
#
# No part of the agent: main.py imports this only while config.json has no key. Once it has, the claim and these files
# are deleted, and a reset frees the heap. The board asks and goes away again: all boards of a claim are one user of
# the broker, which may bear one connection of a user at a time.
import json
import os
import sys
import time

import machine
from boardlet import __version__
from boardlet.link import UP, Link
from boardlet.net import Net
from boardlet.ticks import add, diff
from boardlet_wire import cbor, seal
from micropython import const

from enrol import claim

_LIMIT = const(256)
_WATCHDOG_MS = const(8000)
_MASK = const(0x3FFFFFFF)
_ANSWER_MS = const(15000)
_FIRST_S = const(2)
_LONGEST_S = const(120)
_USER = "claim"
_CONFIG = "config.json"
_RECORD = "enrol"
_GRANTED = const(0)
_SAID = ("granted", "waits for approval", "denied", "too many wait", "this claim has been used")


def ticks():
    return time.ticks_ms() & _MASK


class AskLink(Link):
    # Without a will: a claim may publish its request and nothing else.
    def _connect(self):
        strings = (self.client_id, self.user, self.pswd)
        self._head(0x10, 10 + sum(2 + len(s) for s in strings))
        self.tx.write(b"\0\x04MQTT\x04" + bytes((0xC2, self.keepalive >> 8, self.keepalive & 255)))
        for s in strings:
            self._send_str(s)


class Asker:
    def __init__(self, cfg):
        self.cfg = cfg
        self.claim = bytes.fromhex(cfg["claim"])
        self.secret = bytes.fromhex(cfg["secret"])
        self.public = claim.x25519(self.secret, claim.BASE)
        self.down = seal.half_key(self.claim, seal.DOWN)
        self.up = seal.half_key(self.claim, seal.UP)
        self.prefix = claim.topic(self.public, "")
        login = {
            "id": _USER,
            "user": _USER,
            "password": seal.half_key(self.claim, seal.PASSWORD).hex()[:32],
            "host": cfg["host"],
            "port": cfg.get("port", 1883),
        }
        if "tls" in cfg:
            login["tls"] = cfg["tls"]
        self.link = AskLink(login, self.prefix, _LIMIT)
        self.link.on_message = self.received
        self.net = Net(cfg)
        self.identity = self.wait_s = None
        self.wdt = machine.WDT(timeout=_WATCHDOG_MS) if cfg.get("watchdog", True) else None

    def feed(self):
        if self.wdt:
            self.wdt.feed()

    def rest(self, ms):
        # The watchdog is fed while there is nothing to do.
        while ms > 0:
            self.feed()
            time.sleep_ms(min(ms, 1000))
            ms -= 1000

    def request(self):
        impl = sys.implementation
        self.nonce = os.urandom(16)
        body = {
            0: 1,
            1: self.nonce,
            2: self.public,
            3: machine.unique_id()[:16],
            4: sys.platform[:16],
            5: getattr(impl, "_machine", "")[:64],
            6: __version__,
            7: "%d.%d.%d" % tuple(impl.version[:3]),
        }
        body = cbor.dumps(body)
        return body + seal.tag(self.up, self.prefix + "q", b"", body, seal.UP_TAG)

    def received(self, letter, payload):
        if letter != "a" or payload is None:
            return
        # Under the nonce of this request: what was answered to an earlier one is nothing.
        body = seal.verify(self.down, self.prefix + "a", self.nonce, payload, seal.DOWN_TAG)
        if body is None:
            return
        try:
            answer = cbor.loads(body)
            code, self.wait_s = answer[0], answer[1]
            if code == _GRANTED:
                self.feed()
                shared = claim.x25519(self.secret, answer[2])
                key = claim.agree(self.claim, shared, self.public, answer[2], self.nonce)
                inner = cbor.loads(claim.unwrap(key, answer[3]))
                self.identity = {"id": inner[0], "key_number": inner[1], "key": inner[2].hex()}
                self.feed()
            print("enrolment:", _SAID[code])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
            print("enrolment: %r in an answer" % e)

    def ask(self):
        # One connection; raises OSError.
        link = self.link
        now = ticks()
        until = add(now, _ANSWER_MS)
        self.wait_s = None
        asked = False
        link.open(now, 60, b"")
        try:
            while self.wait_s is None and diff(until, now) > 0:
                self.feed()
                link.step(now)
                if link.state == UP and not asked:
                    link.listen(now, "a")
                    link.send(now, "q", self.request())
                    asked = True
                link.flush(now)
                link.wait(min(1000, link.due(now)))
                now = ticks()
        finally:
            link.quit(now)

    def run(self):
        back_off = _FIRST_S
        while not self.identity:
            while not self.net.ready(ticks()):
                self.rest(250)
            try:
                self.ask()
            except OSError as e:
                print("broker: %r" % e)
                self.wait_s = None
            if self.identity:
                return
            if self.wait_s is None:
                wait = back_off
                back_off = min(2 * back_off, _LONGEST_S)
            else:
                wait = max(1, min(self.wait_s, 3600))
                back_off = _FIRST_S
            # Half of it at random, so that a box of chips does not ask as one.
            self.rest(500 * wait + int.from_bytes(os.urandom(2), "big") * 500 * wait // 65535)


def _write(cfg):
    text = json.dumps(cfg)
    with open(_CONFIG, "w") as f:
        f.write(text)
    with open(_CONFIG) as f:
        if f.read() != text:
            raise OSError("config.json was not kept")


def _keep(store, cfg):
    # A power cut in the middle of a write costs a file, on FAT at least: so first the store, whose files bear that.
    store.put(_RECORD, json.dumps(cfg).encode())
    _write(cfg)
    store.drop(_RECORD)


def _remove():
    for name in ("__init__", "claim"):
        for end in (".mpy", ".py"):
            try:
                os.remove("enrol/" + name + end)
            except OSError:
                pass  # frozen, or the other form
    try:
        os.rmdir("enrol")
    except OSError:
        pass


def run(boot):
    store = boot.store
    try:
        with open(_CONFIG) as f:
            cfg = json.load(f)
    except (OSError, ValueError):
        cfg = {}
    if not cfg:
        kept = store.get(_RECORD)
        if kept:
            _keep(store, json.loads(kept))
            boot.clear(1)
            machine.reset()
    if "claim" not in cfg:
        # As an ESP32 whose file system is broken: the agent knows where else to look.
        from boardlet.agent import run

        return run(boot)
    if "secret" not in cfg:
        cfg["secret"] = os.urandom(32).hex()
        _keep(store, cfg)
    asker = Asker(cfg)
    print("enrolment: fingerprint " + claim.fingerprint(asker.public))
    boot.clear(1)
    asker.run()
    del cfg["claim"], cfg["secret"]
    cfg.update(asker.identity)
    _keep(store, cfg)
    _remove()
    machine.reset()
