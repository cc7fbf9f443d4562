# The one MQTT connection, on umqtt.simple's codec: never blocks after TCP stands, bounded in memory and in time.
#
# umqtt.simple writes packets to `self.sock`, which here is a bytearray that the loop flushes as far as the socket takes
# it; what umqtt reads with blocking calls is read here by a parser that keeps its place between calls. Everything that
# the peer may withhold has a deadline of our own, because a socket's time-outs differ between ports.
import select
import socket

from micropython import const
from umqtt.simple import MQTTClient

from boardlet.ticks import add, diff

_CONNECT_S = const(5)  # below the watchdog's 8 s: connecting is the one call that blocks
_ANSWER_MS = const(20000)  # CONNACK, SUBACK and PUBACK come in this time, or the connection is dead
_IN_FLIGHT = const(4)
_TX_MAX = const(4096)
_HEAD = const(32)  # topic and ids beside a payload
_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)

DOWN = const(0)
_WAIT = const(1)  # CONNECT sent
UP = const(2)


class Tx:
    def __init__(self):
        self.buf = bytearray()

    def write(self, data, n=None):
        self.buf.extend(data if n is None else memoryview(data)[:n])


class Link(MQTTClient):
    def __init__(self, cfg, prefix, limit):
        super().__init__(cfg["id"], cfg["host"], cfg.get("port", 1883), cfg["user"], cfg["password"])
        self.prefix = prefix.encode()
        self.limit = limit
        self.rx = bytearray(limit + _HEAD)
        self.view = memoryview(self.rx)
        self.sock = self.tx = Tx()
        self.cfg = cfg
        self.net = None
        self.poller = select.poll()
        self.state = DOWN
        self.oversize = 0
        self.on_message = None
        self.failures = 0
        self.inflight = {}
        self.reset()

    def reset(self):
        self.got = 0  # bytes of the present packet in rx
        self.size = -1  # its whole length, -1 while the fixed header is incomplete
        self.skip = 0  # bytes of an oversize packet that are still to be drained
        self.tx.buf = bytearray()
        self.inflight.clear()

    def open(self, now, keepalive, will):
        # Blocks for at most _CONNECT_S and the port's name resolution; raises OSError.
        self.close()
        self.reset()
        self.keepalive = keepalive
        self.set_last_will(self.prefix + b"s", will, True, 1)
        # The name is resolved anew each time: sites change their addresses within ten years.
        addr = socket.getaddrinfo(self.server, self.port, 0, socket.SOCK_STREAM)[0][-1]
        net = socket.socket()
        try:
            net.settimeout(_CONNECT_S)
            net.connect(addr)
            net.setblocking(False)
            try:
                net.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
            except Exception:
                pass  # a port without the option works, only slower
        except Exception:
            net.close()
            raise
        self.net = self.io = net  # what is polled; what is read and written
        if "tls" in self.cfg:
            from boardlet import tls  # a board without has no such file

            self.io = tls.wrap(self, net)
        self.poller.register(net, select.POLLIN)
        self.heard = self.sent = now
        self.deadline = add(now, _ANSWER_MS)
        self.state = _WAIT
        self._connect()
        self.flush(now)

    def _connect(self):
        flags = 0x02 | 0x04 | 0x08 | 0x20 | 0xC0  # clean session, will at QoS 1 and retained, user and password
        strings = (self.client_id, self.lw_topic, self.lw_msg, self.user, self.pswd)
        self._head(0x10, 10 + sum(2 + len(s) for s in strings))
        self.tx.write(b"\0\x04MQTT\x04" + bytes((flags, self.keepalive >> 8, self.keepalive & 255)))
        for s in strings:
            self._send_str(s)

    def _head(self, kind, size):
        head = bytearray((kind,))
        while size > 0x7F:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        head.append(size)
        self.tx.write(head)

    def close(self):
        self.state = DOWN
        if self.net:
            try:
                self.poller.unregister(self.net)
                self.io.close()
            except OSError:
                pass  # it is gone either way
            self.net = None

    def quit(self, now):
        # A clean end: the broker discards the will.
        if self.net:
            self.tx.write(b"\xe0\0")
            try:
                self.flush(now)
            except OSError:
                pass  # then the broker sends the will, which says the same
        self.close()

    def _id(self, now):
        # None of the last four: an id that is 65,535 messages old is long acknowledged, or its deadline has passed.
        self.pid = self.pid % 65535 + 1
        self.inflight[self.pid] = now
        return bytes((self.pid >> 8, self.pid & 255))

    def free(self):
        return self.state == UP and len(self.inflight) < _IN_FLIGHT and len(self.tx.buf) < _TX_MAX

    def send(self, now, letter, payload, retain=False):
        # QoS 1; the caller has asked `free` before.
        self._head(0x32 | retain, 2 + len(self.prefix) + 1 + 2 + len(payload))
        self._send_str(self.prefix + letter.encode())
        self.tx.write(self._id(now))
        self.tx.write(payload)
        self.flush(now)

    def listen(self, now, letters):
        self._head(0x82, 2 + len(letters) * (2 + len(self.prefix) + 1 + 1))
        self.tx.write(self._id(now))
        for letter in letters:
            self._send_str(self.prefix + letter.encode())
            self.tx.write(b"\x01")
        self.flush(now)

    def flush(self, now):
        buf = self.tx.buf
        if buf:
            n = self.io.write(buf)
            if n:
                self.sent = now
                self.tx.buf = bytearray(memoryview(buf)[n:]) if n < len(buf) else bytearray()
            wanted = select.POLLIN | select.POLLOUT if self.tx.buf else select.POLLIN
            self.poller.modify(self.net, wanted)

    def due(self, now):
        # Milliseconds until `step` has something to do although nothing arrives.
        if self.state == DOWN:
            return 60000
        third = self.keepalive * 333
        due = min(diff(add(self.sent, third), now), diff(add(self.heard, self.keepalive * 1500), now))
        if self.state == _WAIT:
            due = min(due, diff(self.deadline, now))
        for at in self.inflight.values():
            due = min(due, diff(add(at, _ANSWER_MS), now))
        return max(due, 0)

    def wait(self, ms):
        # Until something arrives or `ms` have passed.
        for _ in self.poller.ipoll(ms):
            return True

    def step(self, now):
        # Reads what is there, keeps the connection alive; raises OSError when it is dead. What this writes goes out by
        # the next `flush`: an acknowledgement, and what is said to the message, in one packet of the network.
        while self._packet(now):
            pass
        if self.state == _WAIT and diff(now, self.deadline) >= 0:
            raise OSError("no CONNACK")
        for at in self.inflight.values():
            if diff(now, at) >= _ANSWER_MS:
                raise OSError("no PUBACK")
        if diff(now, self.heard) >= self.keepalive * 1500:
            raise OSError("silent")
        if diff(now, self.sent) >= self.keepalive * 333:
            self.ping()
            self.sent = now

    def _read(self, n):
        # Up to n more bytes of the packet into rx; False when there are none now.
        n = self.io.readinto(self.view[self.got : self.got + n])
        if n == 0:
            raise OSError("closed")
        self.got += n or 0
        return n

    def _packet(self, now):
        # One step of the parser; True while there may be more to do. The buffer holds fixed header and packet.
        if self.skip:
            self.got = 0
            if not self._read(min(self.skip, len(self.rx))):
                return False
            self.skip -= self.got
            self.got = 0
            return True
        if self.size < 0:
            if not self._read(1):
                return False
            self.heard = now
            if self.got > 1 and not self.rx[self.got - 1] & 0x80:
                size = 0
                for i in range(self.got - 1, 0, -1):
                    size = size << 7 | self.rx[i] & 0x7F
                self.kind = self.rx[0]
                self.size = size
                self.got = 0
            elif self.got > 4:
                raise OSError("malformed length")
            if self.size != 0:
                return True
        want = min(self.size, len(self.rx))
        if self.got < want and not self._read(want - self.got):
            return False
        if self.got < want:
            return True
        self.skip = self.size - want
        size = self.size
        self.size = -1
        self.got = 0
        self._take(now, self.kind, size)
        return self.net is not None

    def _take(self, now, kind, size):
        rx = self.rx
        op = kind & 0xF0
        if op == 0x20:
            if size < 2 or rx[1]:
                raise OSError("CONNACK %d" % rx[1])
            self.state = UP
            self.failures = 0
        elif op == 0x30:
            self._publish(now, kind, size)
        elif op in (0x40, 0x90):
            self.inflight.pop(rx[0] << 8 | rx[1], None)
            if op == 0x90 and b"\x80" in rx[2:size]:
                raise OSError("subscription refused")

    def _publish(self, now, kind, size):
        n = 2 + (self.rx[0] << 8 | self.rx[1])
        if n > len(self.rx) - 2 or n > size:
            return  # a topic that long is none of ours
        topic = self.rx[2:n]
        if kind & 6:
            self.tx.write(b"\x40\x02")
            self.tx.write(self.view[n : n + 2])
            n += 2
        if topic[:-1] != self.prefix:
            return
        letter = chr(topic[-1])
        if size - n > self.limit or self.skip:
            self.oversize += 1
            self.on_message(letter, None)
        else:
            self.on_message(letter, self.view[n:size])
