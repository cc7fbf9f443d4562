"""A microcontroller for the real agent: flash that power cuts tear, pins that drift, a clock, a link.

The firmware runs as it is, on CPython: what MicroPython and the chip give it (`micropython`, `machine`, `umqtt`) are
the small stand-ins below; `open`, `os` and `time` of its modules are those of the one Silicon that is in use. Every
effect on the world (flash, pin, packet) spends one step of a fuse: the power can go between any two of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import types
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from boardlet_wire.keys import board_key
from hub import Connection, Hub


class PowerCutError(BaseException):
    """The power is gone; nothing on the board may catch this."""


class ResetError(BaseException):
    """machine.reset()."""


def _module(name: str, **members: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(members)
    return made


class _Pin:
    IN, OUT, PULL_UP, PULL_DOWN = 0, 1, 1, 2

    def __init__(self, number: int, mode: int = -1, pull: int | None = None) -> None:
        self.number = number

    def value(self, level: object = None) -> int:
        return current().pin(self.number, level)


class _Adc:
    def __init__(self, pin: _Pin) -> None:
        self.pin = pin

    def read_u16(self) -> int:
        return current().adc


def _reset() -> None:
    raise ResetError


_MACHINE = _module("machine", Pin=_Pin, ADC=_Adc, reset=_reset, reset_cause=lambda: current().cause)
_STAND_INS = {
    "micropython": _module("micropython", const=lambda x: x),
    "machine": _MACHINE,
    "umqtt": _module("umqtt"),
    "umqtt.simple": _module("umqtt.simple", MQTTClient=object),
}
sys.modules.update(_STAND_INS)
import rotation as rotation_module  # noqa: E402, F401
from boardlet import agent as agent_module  # noqa: E402
from boardlet import app as app_module  # noqa: E402
from boardlet import config as config_module  # noqa: E402, F401
from boardlet import health as health_module  # noqa: E402
from boardlet import store as store_module  # noqa: E402
from boardlet import twin as twin_module  # noqa: E402, F401
from boardlet.link import DOWN, UP  # noqa: E402
from boardlet.ticks import add, diff  # noqa: E402
from drivers import adc, gpio_in, gpio_out  # noqa: E402, F401 - while `machine` stands in

for _name in _STAND_INS:
    del sys.modules[_name]

_in_use: list[Silicon] = []
ANSWER_MS = 20_000
WAIT = 1  # the link's own word for: CONNECT was sent
MASK = 0x3FFFFFFF
Take = Callable[[Any], None]


def current() -> Silicon:
    return _in_use[-1]


class Flash:
    """Files that a power cut can tear: what is being written may be old, empty, half there or complete afterwards."""

    def __init__(self, spend: Callable[[], None]) -> None:
        self.files: dict[str, bytes] = {}
        self.spend = spend
        self.tear = 0
        self.full = False
        self.writes: list[tuple[str, bytes, bool]] = []  # path, bytes, whether it was finished

    def open(self, path: str, mode: str = "r") -> Any:
        if "w" in mode:
            if self.full:
                raise OSError(28)
            self.spend()
            return self._writing(path)
        if path not in self.files:
            raise OSError(2)
        return BytesIO(self.files[path])

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[Any]:
        old, written = self.files.get(path), bytearray()

        def write(data: bytes) -> None:
            written.extend(data)
            self.spend()

        try:
            yield types.SimpleNamespace(write=write)
            self.spend()
        except PowerCutError:
            torn = (old, b"", bytes(written[: len(written) // 2]), bytes(written))[self.tear]
            if torn is not None:
                self.files[path] = torn
            self.writes.append((path, bytes(written), False))
            raise
        self.files[path] = bytes(written)
        self.writes.append((path, bytes(written), True))

    def mkdir(self, path: str) -> None:
        pass

    def remove(self, path: str) -> None:
        if path not in self.files:
            raise OSError(2)
        self.spend()
        del self.files[path]

    def listdir(self, path: str) -> list[str]:
        return sorted(name.removeprefix(path + "/") for name in self.files if name.startswith(path + "/"))


class Link:
    """What the agent needs of its link, over a connection to the model broker (the real one is in tests/firmware)."""

    def __init__(self, cfg: dict[str, Any], prefix: str, limit: int) -> None:
        self.silicon = current()
        self.client_id, self.prefix, self.limit = cfg["id"], prefix, limit
        self.on_message: Callable[[str, Any], None] = lambda letter, payload: None
        self.state, self.failures, self.number = DOWN, 0, 0
        self.inflight: dict[int, int] = {}
        self.connection: Connection | None = None
        self.heard = self.sent = self.keepalive = self.deadline = 0

    def open(self, now: int, keepalive: int, will: bytes) -> None:
        self.close()
        self.inflight.clear()
        self.silicon.spend()
        if not self.silicon.network:
            raise OSError("no route")
        self.connection = self.silicon.hub.dial(self.client_id, keepalive, (self.prefix + "s", will))
        if self.connection is None:
            raise OSError("refused")
        self.keepalive, self.heard, self.sent, self.deadline = keepalive, now, now, add(now, ANSWER_MS)
        self.state = WAIT

    def close(self) -> None:
        self.state = DOWN
        if self.connection:
            self.connection.leave()
            self.connection = None

    def quit(self, now: int) -> None:
        if self.connection:
            self.connection.send(("disconnect",))
        self.close()

    def free(self) -> bool:
        return self.state == UP and len(self.inflight) < 4

    def _id(self, now: int) -> int:
        self.number = self.number % 65535 + 1
        self.inflight[self.number] = now
        return self.number

    def _send(self, now: int, packet: Any) -> None:
        self.silicon.spend()
        self.sent = now
        if self.connection is None or self.connection.client_closed:
            raise OSError("closed")
        self.connection.send(packet)

    def send(self, now: int, letter: str, payload: bytes, retain: bool = False) -> None:
        self._send(now, ("publish", self._id(now), self.prefix + letter, payload, retain))

    def listen(self, now: int, letters: str) -> None:
        self._send(now, ("subscribe", self._id(now), [self.prefix + letter for letter in letters]))

    def flush(self, now: int) -> None:
        """All that was said has gone: packets of the network are no matter here."""

    def due(self, now: int) -> int:
        if self.state == DOWN:
            return 60000
        ms = min(diff(add(self.sent, self.keepalive * 333), now), diff(add(self.heard, self.keepalive * 1500), now))
        if self.state == WAIT:
            ms = min(ms, diff(self.deadline, now))
        for at in self.inflight.values():
            ms = min(ms, diff(add(at, ANSWER_MS), now))
        return max(ms, 0)

    def step(self, now: int) -> None:
        assert self.connection is not None
        while self.connection is not None and self.connection.inbox:
            self.heard = now
            self._take(now, self.connection.inbox.popleft())
        if self.connection is None or self.connection.client_closed:
            raise OSError("closed by the broker")
        if self.state == WAIT and diff(now, self.deadline) >= 0:
            raise OSError("no CONNACK")
        if any(diff(now, at) >= ANSWER_MS for at in self.inflight.values()):
            raise OSError("no PUBACK")
        if diff(now, self.heard) >= self.keepalive * 1500:
            raise OSError("broker is silent")
        if diff(now, self.sent) >= self.keepalive * 333:
            self._send(now, ("ping",))

    def _take(self, now: int, packet: Any) -> None:
        match packet:
            case ("connack",):
                self.state, self.failures = UP, 0
            case ("puback" | "suback", number):
                self.inflight.pop(number, None)
            case ("publish", number, topic, payload, _):
                assert self.connection is not None
                self.connection.send(("puback", number))
                self.on_message(topic[-1], None if len(payload) > self.limit else memoryview(payload))


class Silicon:
    """One board: powered or not. `tried` is called with every value that the app's handlers are given."""

    def __init__(self, board_id: str, root: bytes, hub: Hub, clock: Callable[[], int], seed: bytes = b"") -> None:
        self.board_id, self.hub, self.clock, self.seed = board_id, hub, clock, seed
        self.key = board_key(root, board_id, 1)
        self.flash = Flash(self.spend)
        self.pins: dict[int, int] = {}
        self.adc = 20
        self.stuck = self.broken = False
        self.network = True
        self.fuse: int | None = None
        self.cause = 1
        self.agent: Any = None
        self.boots = self.randoms = self.lives = 0
        self.started = 0
        self.due_at: int | None = None
        self.restart_at: int | None = None
        self.deadly: Callable[[str, Any], bool] = lambda name, value: False
        self.attach()

    def attach(self) -> None:
        """Make this silicon the one that the firmware's modules run on."""
        _in_use[:] = [self]
        store_module.open = self.flash.open  # type: ignore[attr-defined]
        store_module.os = self.flash
        app_module.open = self.flash.open
        fake_sys = types.SimpleNamespace(print_exception=lambda e, out: out.write(repr(e)))
        health_module.sys = app_module.sys = fake_sys
        health_module.print = app_module.print = lambda *a: None
        agent_module.print = lambda *a: None
        agent_module.gc = types.SimpleNamespace(collect=lambda: None)
        agent_module.Link = Link
        agent_module.os = types.SimpleNamespace(urandom=self.random)
        agent_module.time = types.SimpleNamespace(ticks_ms=self.ticks)

    def random(self, n: int) -> bytes:
        self.randoms += 1
        return hashlib.sha256(self.seed + self.randoms.to_bytes(8, "big")).digest()[:n]

    def ticks(self) -> int:
        # Every boot begins just before the counter wraps, so that the wrap is always met.
        return (self.clock() - self.started - 40_000) & MASK

    def spend(self) -> None:
        if self.fuse is not None:
            if self.fuse <= 0:
                raise PowerCutError
            self.fuse -= 1

    def pin(self, number: int, level: object = None) -> int:
        if self.broken:
            raise OSError("the pin does not answer")
        if level is not None:
            self.spend()
            if not self.stuck:
                self.pins[number] = int(bool(level))
        return self.pins.get(number, 0)

    @property
    def powered(self) -> bool:
        return self.agent is not None

    @property
    def twin(self) -> Any:
        return self.agent.twin

    def power_on(self) -> None:
        """Boot as firmware/main.py does."""
        self.restart_at = None
        self.started = self.clock()
        self.boots += 1
        for held in (app_module.handlers, app_module._props, app_module._early):
            held.clear()
        app_module._timers.clear()
        app_module.crash = app_module.digest = None
        app_module.broken = False
        for name in ("target", "label", "count"):
            app_module.handlers[name] = self._handler(name)
        with self._living():
            self.agent = self._agent(health_module.Boot())
            self.due_at = self.clock()

    def _agent(self, boot: Any) -> Any:
        return agent_module.Agent({"id": self.board_id, "key": self.key, "host": "hub"}, boot)

    def _handler(self, name: str) -> Take:
        def handle(value: Any) -> None:
            self.spend()
            if self.deadly(name, value):
                raise PowerCutError

        return handle

    @contextlib.contextmanager
    def _living(self) -> Iterator[None]:
        try:
            yield
        except PowerCutError:
            self.power_off(again_ms=500)
        except ResetError:
            self._end()
            self.cause = 2
            self.restart_at = self.clock()

    def crash(self) -> None:
        """Something raises where nothing may: main.py writes it down and resets."""
        with self._living():
            self.agent.boot.crashed(ValueError("crash"))
            raise ResetError

    def power_off(self, again_ms: int | None = None) -> None:
        """The power goes; the broker is not told."""
        self._end()
        self.pins.clear()
        self.fuse = None
        self.cause = 1
        if again_ms is not None:
            self.restart_at = self.clock() + again_ms

    def _end(self) -> None:
        if self.agent is not None and self.agent.link.connection:
            self.agent.link.connection.vanish()
        self.agent = self.due_at = None

    def erase(self) -> None:
        """A new board under the old id."""
        self.power_off()
        self.flash.files.clear()
        self.lives += 1

    @property
    def ready(self) -> bool:
        """Whether there is something to do now."""
        if self.agent is None:
            return self.restart_at is not None and self.clock() >= self.restart_at
        connection = self.agent.link.connection
        stirred = connection is not None and (bool(connection.inbox) or connection.client_closed)
        return stirred or (self.due_at is not None and self.clock() >= self.due_at)

    def turn(self) -> None:
        """Boot, or take one turn of the agent's loop."""
        if self.agent is None:
            self.power_on()
            return
        with self._living():
            ms = self.agent.turn()
            self.due_at = self.clock() + max(ms, 1)

    def next_at(self) -> int | None:
        return self.restart_at if self.agent is None else self.due_at
