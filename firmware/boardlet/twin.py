# Desired and reported (PROTOCOL.md sections 5 to 10): decides, and touches neither socket nor clock.
#
# In: messages whose seal is right, the time, and what the drivers read. Out: one message at a time, composed when the
# link can take it, so that nothing queues while it cannot: what changed meanwhile falls together, and after a new
# connection the full report says it all. What has to survive a power cut goes through the store, one write an edit.
from boardlet_wire import cbor
from boardlet_wire.seal import digest
from micropython import const

from boardlet.model import STRANGE, check, load
from boardlet.ticks import add, diff

_CONFLICT = const(1)
_TOO_LARGE = const(2)
_MALFORMED = const(3)
_NO_MODEL = const(4)
_REVERTED = const(5)
_STORAGE = const(6)

_READ_ONLY = const(3)
_UNKNOWN = const(4)
_DRIVER_FAILED = const(6)
_NO_HANDLER = const(7)
_HANDLER_FAILED = const(8)
_NOT_RUNNING = const(9)

_FULL_MS = const(1000)  # at most one full report in this time
_READ_BACK_MS = const(1000)
_SOON_MS = const(50)  # a sensor that is still measuring is asked again
_WANT_MS = const(5000)
_GIVE_UP_MS = const(30000)
_MODEL_MAX = const(4096)
_SEQ_MAX = const(0x3FFFFFFF)
_CHUNK_ROOM = const(96)  # of a file message beside its bytes: keys, digest, tag
_TRIES = const(2)  # at the second boot while trying it is given up


class Twin:
    def __init__(self, store, limit, drivers, app, say):
        # drivers(spec) makes a property's driver; app is None in safe mode; say(level, text) logs.
        self.store = store
        self.limit = limit
        self.drivers = drivers
        self.app = app
        self.say = say
        self.props = {}
        self.model = b""  # digest of the model that runs
        self.applied = None  # [uid, revision, digest, generation]
        self.state = None  # its state's bytes
        self.highest = 0
        self.refused = None
        self.trying_since = None
        self.proven_ms = 30000
        self.heartbeat_ms = 60000
        self.level = 1
        self.health = 0
        self.sleep_ms = 0
        self.counters = [0, 0, 0, 0]
        self.strange = []  # indexes that desired names and the model does not have
        self.switch = False  # a new model: the agent begins a new epoch
        self.fetch = None  # [digest, bytearray, total, asked at, since, desired]
        self.reset(0)

    # Life
    def boot(self, now, tries):
        # Run what is in flash: what is being tried, unless it has had its boots.
        good, trying = self._record("good"), self._record("next")
        self.refused = self._record("bad")
        self.refused and self._saw(self.refused[0])
        if trying and (not good or trying[1] != good[1]):
            self._saw(trying[1])
            if tries < _TRIES:
                self.trying_since = now
                good = trying
            else:
                self.refuse(trying[1], trying[2], _REVERTED, True)
                self.store.drop("next")
        if good:
            self._saw(good[1])
        if good and self._load(now, cbor.loads(good[4])[-1]):
            self._run(now, good)

    def _record(self, name):
        raw = self.store.get(name)
        return cbor.loads(raw) if raw else None

    def _saw(self, revision):
        self.highest = max(self.highest, revision)

    def reset(self, now):
        # A new connection: whatever was told before must be told again, when asked.
        self.seq = 0
        self.nonce = None
        self.full_at = None
        self.last_full = add(now, -_FULL_MS)
        self.sent_at = now
        self.answer = False
        self.full_told = False
        self.tell_refused = False
        self.health_told = self.health
        for p in self.props.values():
            p.told = None
            p.told_at = None
            p.error_told = 0

    # Desired
    def on_desired(self, now, body):
        try:
            f = cbor.loads(body)
            state = f[3]
            asked = [f[0], f[1], digest(state), f[2], state]
            decoded = cbor.loads(state)
            decoded[-1].hex()
            settings = decoded.get(-3, {})
            for i in (0, 1, 2):
                if not 0 <= settings.get(i, 0) < 0x7FFFF:
                    raise ValueError
            if not 0 < asked[1] <= 0x7FFFFFFF or len(asked[0]) != 6 or asked[3] < 0:
                raise ValueError
        except STRANGE:
            self.counters[1] += 1
            return self.refuse(0, b"", _MALFORMED)
        revision, dig = asked[1], asked[2]
        if self.applied and revision == self.applied[1]:
            if dig != self.applied[2]:
                return self.refuse(revision, dig, _CONFLICT)
            self.applied = asked[:4]  # perhaps of a new object or generation: no flash is worn for a name
            self.answer = True
        elif revision < self.highest:
            self.counters[3] += 1
        elif revision == self.highest and self.refused and self.refused[2] == _REVERTED:
            self.tell_refused = True
        else:
            self._take(now, asked, decoded)

    def _take(self, now, asked, decoded):
        dig = decoded[-1]
        if dig != self.model and not self.store.get("m" + dig.hex()):
            if not self.fetch or self.fetch[0] != dig:
                self.fetch = [dig, None, 0, None, now, asked]
            self.fetch[5] = asked
            return
        self.fetch = None
        try:
            self.store.put("next", cbor.dumps(asked))
        except OSError:
            return self.refuse(asked[1], asked[2], _STORAGE)
        self._saw(asked[1])
        if self.refused:
            self.refused = None
            self.store.drop("bad")
        self.trying_since = now
        if dig != self.model:
            self._load(now, dig)
            self.switch = True
        self._run(now, asked)
        self.answer = True

    def refuse(self, revision, dig, code, keep=False):
        self.refused = [revision, dig, code]
        self.tell_refused = True
        if keep:
            self.store.put("bad", cbor.dumps(self.refused))

    def _load(self, now, dig):
        raw = self.store.get("m" + dig.hex())
        if not raw:
            return False
        old = self.props
        self.props = load(raw)
        self.model = dig
        for p in self.props.values():
            p.read_at = now  # not 0, which is to come for half of the ticks' period
            o = old.get(p.index)
            if o and o.kind == p.kind:
                # It goes on: its pins see nothing of the switch.
                p.driver, o.driver = o.driver, None
                p.wanted = o.wanted
                p.value = o.value
                p.error = o.error
        for o in old.values():
            if hasattr(o.driver, "close"):
                try:
                    o.driver.close()
                except Exception as e:
                    self._broken(o, e)
        for p in self.props.values():
            if not p.spec or p.driver:
                continue
            if self.app is None:
                p.error = _NOT_RUNNING
                continue
            try:
                p.driver = self.drivers(p.spec)
            except Exception as e:
                self._broken(p, e)
        if self.app:
            self.app.model({p.name: p for p in self.props.values()})
        return True

    def _run(self, now, asked):
        state = cbor.loads(asked[4])
        settings = state.get(-3) or {}
        self.heartbeat_ms = settings.get(0, 60) * 1000
        self.level = settings.get(1, 1)
        self.sleep_ms = settings.get(2, 0) * 1000
        first = self.state is None
        self.applied = asked[:4]
        self.state = asked[4]
        for p in self.props.values():
            if p.error not in (_DRIVER_FAILED, _NOT_RUNNING):
                p.error = 0
            v = state.get(p.index, p.row.get(7) if first else None)
            if v is None:
                pass  # it stays as it is
            elif p.writable:
                self._set(now, p, v)
            else:
                p.error = _READ_ONLY
        self.strange = [i for i in state if i >= 0 and i not in self.props]

    def _set(self, now, p, v):
        if self.app is None:
            p.error = _NOT_RUNNING
            return
        code = check(p.row, v)
        if code:
            p.error = code
            return
        if v == p.wanted == p.value and not p.error:
            return  # handlers and wires hear of changes only
        p.wanted = p.told = p.told_at = None  # what was asked for is told at once, and exactly
        if p.driver:
            p.wanted = v
            try:
                p.driver.set(v)
                p.value = p.fit(p.driver.read())
                p.error = 0
            except Exception as e:
                self._broken(p, e)
            p.read_at = add(now, _READ_BACK_MS)
        elif p.spec:
            p.error = _DRIVER_FAILED
        else:
            self._handle(p, v)

    def _handle(self, p, v):
        handler = self.app.handlers.get(p.name)
        if not handler:
            p.error = _NO_HANDLER
            return
        try:
            r = handler(v)
            p.value = v if r is None else p.fit(r)
            p.wanted = v
        except Exception as e:
            p.error = _HANDLER_FAILED
            self.app.failed(e)

    def _broken(self, p, e):
        if p.error != _DRIVER_FAILED:
            self.say(0, "%s: %r" % (p.name, e))
        p.error = _DRIVER_FAILED

    # Time
    def tick(self, now):
        # Reads what is due, and proves what has run long enough.
        for p in self.props.values():
            if p.driver and diff(now, p.read_at) >= 0:
                self._sample(now, p)
        if self.trying_since is not None and diff(now, self.trying_since) >= self.proven_ms:
            self.prove()
        f = self.fetch
        if f and f[3] is not None and diff(now, f[3]) >= _WANT_MS:
            f[3] = None
        if f and f[4] is not None and diff(now, f[4]) >= _GIVE_UP_MS:
            f[4] = None  # told once; it goes on asking
            self.refuse(f[5][1], f[5][2], _NO_MODEL)

    def _sample(self, now, p):
        p.read_at = add(now, _READ_BACK_MS if p.writable else p.spec.get(6, 200))
        try:
            v = p.driver.read()
            if v is None:
                p.read_at = add(now, _READ_BACK_MS if p.writable else _SOON_MS)
                return
            v = p.fit(v)
            if p.wanted is not None and v != p.wanted and p.error in (0, _DRIVER_FAILED):
                p.driver.set(p.wanted)
                v = p.fit(p.driver.read())
            p.value = v
            if p.error == _DRIVER_FAILED:
                p.error = 0
        except Exception as e:
            self._broken(p, e)

    def prove(self):
        if self.trying_since is None:
            return
        self.trying_since = None
        self.store.put("good", cbor.dumps(self.applied + [self.state]))
        keep = {"m" + self.model.hex(), "good", "next", "bad", "boot", "crash"}
        for name in self.store.names():
            if name not in keep:
                self.store.drop(name)

    def done(self, now):
        # Whether all has been read and said, and nothing is under way.
        for p in self.props.values():
            if p.driver and p.value is None and not p.error and not p.writable:
                return False
        return self.full_told and not self.fetch and self.due(now, True) > 0

    def due(self, now, free):
        # Milliseconds until `tick` or `message` has something to do.
        ms = diff(add(self.sent_at, self.heartbeat_ms), now) if free else 60000
        for p in self.props.values():
            if p.driver:
                ms = min(ms, diff(p.read_at, now))
            if free and self.nonce is None and self._told_wrong(p):
                ms = min(ms, self._wait(now, p))
        if self.trying_since is not None:
            ms = min(ms, diff(add(self.trying_since, self.proven_ms), now))
        f = self.fetch
        if f:
            ms = min(ms, 0 if f[3] is None and free else diff(add(f[3] or now, _WANT_MS), now))
        if free and self.full_at is not None:
            ms = min(ms, diff(self.full_at, now))
        if free and (self.answer or self.tell_refused or self.health != self.health_told):
            ms = 0
        return max(ms, 0)

    def _told_wrong(self, p):
        return p.error != p.error_told or (p.changed() and not p.error)

    def _wait(self, now, p):
        if p.told_at is None or p.error != p.error_told:
            return 0
        ms = p.row.get(9, 0) * 1000
        wait = diff(add(p.told_at, ms), now)
        return wait if 0 < wait <= ms else 0

    # Commands and files
    def on_command(self, now, body):
        # The operation, for the agent: 1 where the session has to be published again.
        f = cbor.loads(body)
        asked = f.get(1)
        if asked in (0, 1):
            f[0].hex()  # bytes, or it is malformed
            self.nonce = f[0]
            # Nobody may have asked for weeks: what is past for half the ticks' period looks like the future.
            at = add(self.last_full, _FULL_MS)
            self.full_at = at if 0 < diff(at, now) <= _FULL_MS else now
        return asked

    def on_file(self, now, body):
        m = cbor.loads(body)
        f = self.fetch
        if not f or m[0] != f[0] or m.get(4):
            return  # not here: asked again after a while
        total, offset, data = m[2], m[1], m[3]
        if not 0 < total <= _MODEL_MAX or (f[1] is not None and total != f[2]):
            f[1] = None
            return
        if f[1] is None:
            f[1], f[2] = bytearray(), total
        if offset != len(f[1]):
            return
        f[1].extend(data)
        f[3] = None
        if len(f[1]) < total:
            return
        raw = bytes(f[1])
        f[1] = None
        if digest(raw) != f[0]:
            return
        try:
            load(raw)
            self.store.put("m" + f[0].hex(), raw)
        except (ValueError, OSError):
            self.fetch = None
            return self.refuse(f[5][1], f[5][2], _STORAGE)
        self._take(now, f[5], cbor.loads(f[5][4]))

    # What is to be said
    def message(self, now, uptime_s):
        # (letter, body) of the one message that is most due, or None.
        if self.full_at is not None and diff(now, self.full_at) >= 0:
            return self._report(now, self._full(now, uptime_s))
        f = self.fetch
        if f and f[3] is None:
            f[3] = now
            size = self.limit - _CHUNK_ROOM
            return "w", cbor.dumps({0: f[0], 1: len(f[1]) if f[1] else 0, 2: size})
        if self.full_at is None:
            body = self._changes(now)
            if body:
                return self._report(now, body)
        if diff(now, self.sent_at) >= self.heartbeat_ms:
            return self._report(now, {-4: uptime_s, -2: self.applied[1] if self.applied else 0})

    def _report(self, now, body):
        body[-1] = self.seq
        self.seq += 1
        self.sent_at = now
        if self.seq >= _SEQ_MAX:
            self.switch = True
        return "r", cbor.dumps(body)

    def _errors(self, full):
        errors = {}
        for p in self.props.values():
            if p.error if full else p.error != p.error_told:
                errors[p.index] = p.error
            p.error_told = p.error
        if full or self.answer:
            for i in self.strange:
                errors[i] = _UNKNOWN
        return errors

    def _full(self, now, uptime_s):
        body = {-4: uptime_s, -5: self.nonce, -8: self.health}
        body[-2] = self.applied or 0
        body[-7] = dict(enumerate(self.counters))
        if self.refused:
            body[-6] = self.refused
        for p in self.props.values():
            if p.value is not None:
                self._tell(now, p, body)
        errors = self._errors(True)
        if errors:
            body[-3] = errors
        self.full_at = self.nonce = None
        self.last_full = now
        self.full_told = True
        self.answer = self.tell_refused = False
        self.health_told = self.health
        return body

    def _tell(self, now, p, body):
        body[p.index] = p.told = p.value
        p.told_at = now

    def _changes(self, now):
        body = {}
        for p in self.props.values():
            if self._told_wrong(p) and not self._wait(now, p):
                if p.changed() and p.value is not None:
                    self._tell(now, p, body)
        errors = self._errors(False)
        if errors:
            body[-3] = errors
        if self.answer:
            body[-2] = self.applied
            self.answer = False
        if self.tell_refused:
            body[-6] = self.refused
            self.tell_refused = False
        if self.health != self.health_told:
            body[-8] = self.health_told = self.health
        return body
