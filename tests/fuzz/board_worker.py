# The board's real code on MicroPython over a file of inputs: one line for each, beginning with "=", says what happened.
# usage: micropython board_worker.py codec|agent INPUTS   (each input: two bytes of length, big-endian, and the bytes)
#
# What no input may do ends the worker with a traceback, after a line "!" with the input in hex. The last line, "#", has
# the slowest input in milliseconds and the heap in use after the first and after the last thousand inputs.
import gc
import json
import struct
import sys
import time
from binascii import hexlify, unhexlify

from boardlet_wire import cbor


def hexed(raw):
    return hexlify(raw).decode()


def text(v):
    # As tests/fuzz/codec_target.py prints a value.
    if isinstance(v, dict):
        return "{" + ",".join(str(k) + ":" + text(v[k]) for k in sorted(v)) + "}"
    if isinstance(v, list):
        return "[" + ",".join([text(i) for i in v]) + "]"
    if isinstance(v, str):
        return "t" + hexed(v.encode())
    if isinstance(v, bytes):
        return "b" + hexed(v)
    if isinstance(v, float):
        return "f" + hexed(struct.pack(">d", v))
    return repr(v)


class Codec:
    def take(self, raw):
        try:
            return text(cbor.loads(raw))
        except ValueError:
            return "refused"


class Net:
    # A socket that has one input to give, in pieces of a size that the input's length decides.
    def __init__(self):
        self.raw = b""
        self.at = 0
        self.sent = 0

    def readinto(self, view):
        n = min(len(view), len(self.raw) % 7 + 1 if len(self.raw) % 3 else 999, len(self.raw) - self.at)
        if n <= 0:
            return None
        view[:n] = self.raw[self.at : self.at + n]
        self.at += n
        return n

    def write(self, buf):
        self.sent += len(buf)
        return len(buf)

    def close(self):
        pass


class Poller:
    def register(self, net, events):
        pass

    modify = register

    def unregister(self, net):
        pass


class Boot:
    safe = False
    tries = 0
    cause = 1

    def __init__(self, store):
        self.store = store
        self.rec = [1, 0, 0, 0, 0]

    def crash(self):
        return None


class Agent:
    # The agent with its link to a broker that says what the inputs are; a fresh board every few inputs.
    def __init__(self):
        with open("setup.json") as f:
            self.setup = json.load(f)
        self.count = 0
        self.now = 0
        import rotation  # noqa: F401 - the first command 2 loads it, which is no growth

        self.fresh()

    def fresh(self):
        from boardlet import agent
        from boardlet.store import Store

        store = Store("state")
        for name in store.names():
            store.drop(name)
        cfg = {"id": self.setup["id"], "key": unhexlify(self.setup["key"]), "host": "", "user": "u", "password": "p"}
        self.agent = agent.Agent(cfg, Boot(store))
        self.agent.link.poller = Poller()
        self.connect()
        for raw in self.setup["before"]:
            self.feed(unhexlify(raw))
        if self.agent.twin.model != unhexlify(self.setup["model"]):
            raise RuntimeError("the board did not take its model")

    def connect(self):
        a = self.agent
        link = a.link
        a.epoch = unhexlify(self.setup["epoch"])
        a.session(0)
        link.reset()
        link.keepalive = max(5, min(60, a.twin.heartbeat_ms // 1000))
        link.net = link.io = Net()
        link.heard = link.sent = link.deadline = self.now
        link.state = 1
        a.twin.reset(self.now)
        a.birth_due = True
        self.feed(b"\x20\x02\x00\x00")

    def feed(self, raw):
        a, link = self.agent, self.agent.link
        a.now = self.now
        link.net.raw, link.net.at = raw, 0
        link.step(self.now)
        a.twin.tick(self.now)
        if a.twin.switch:
            a.twin.switch = False
        a.speak(self.now)
        link.flush(self.now)
        a.twin.due(self.now, True)
        a.twin.done(self.now)
        link.inflight.clear()  # acknowledged

    def take(self, raw):
        self.count += 1
        if self.count % 25 == 0:
            self.fresh()
        self.now = (self.now + 997) & 0x3FFFFFFF
        twin, link = self.agent.twin, self.agent.link
        before = list(twin.counters)
        link.heard = self.now
        try:
            self.feed(raw)
            said = "up"
        except OSError as e:
            said = str(e)
        if len(link.tx.buf) > 6000 or len(twin.counters) != 4 or len(twin.props) > 255:
            raise RuntimeError("it grows")
        counted = [twin.counters[i] != before[i] for i in range(4)]
        said += " {} {} ".format(counted, twin.refused and twin.refused[2])  # noqa: UP032 - MicroPython
        said += str(sorted([p.error for p in twin.props.values()]))
        if link.state != 2 or link.got or link.skip:
            self.connect()
        return said


def main():
    target = Codec() if sys.argv[1] == "codec" else Agent()
    slowest = count = 0
    heap = [0, 0]
    with open(sys.argv[2], "rb") as f:
        while True:
            head = f.read(2)
            if not head:
                break
            raw = f.read(head[0] << 8 | head[1])
            began = time.ticks_ms()
            try:
                said = target.take(raw)
            except Exception:
                print("!" + hexed(raw))
                raise
            slowest = max(slowest, time.ticks_diff(time.ticks_ms(), began))
            print("=" + said)
            count += 1
            if count == 1000:
                said = raw = None
                gc.collect()
                heap[0] = gc.mem_alloc()
    said = raw = head = None
    gc.collect()
    heap[1] = gc.mem_alloc()
    print("#" + " ".join([str(n) for n in (slowest, heap[0] or heap[1], heap[1])]))


main()
