"""One real bridge process (runtime.wiring.Bridge, whole) on a loop whose time is the world's.

Only its three doors are exchanged: the MQTT transport, the API server's client, and the watches. What
goes through them waits until the world lets it pass. A process can be paused, and killed between any two steps.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from apiserver import ApiServer
from boardlet_bridge.kube import finalizer as finalizer_module
from boardlet_bridge.kube import resync as resync_module
from boardlet_bridge.kube import status_writer as writer_module
from boardlet_bridge.kube import store as store_module
from boardlet_bridge.kube.client import ApiError, Unavailable
from boardlet_bridge.mqtt import session as session_module
from boardlet_bridge.mqtt.transport import ConnectionEnded, Transport
from boardlet_bridge.runtime import snapshot as snapshot_module
from boardlet_bridge.runtime import wiring
from boardlet_bridge.runtime.settings import Settings
from hub import Connection, Hub, Packet

KEEPALIVE_S = 30


class _NoSelector:
    def select(self, timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """A loop without files and sockets whose clock is given; `step` runs what is ready and due."""

    def __init__(self, now: Callable[[], float], process: Process) -> None:
        super().__init__()
        self._now, self.process = now, process
        self._selector = _NoSelector()
        self._clock_resolution = 1e-9
        self.errors: list[Any] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._now()

    def _process_events(self, events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    @property
    def ready(self) -> bool:
        at = self.next_at
        return bool(self._ready) or (at is not None and at <= self._now())

    @property
    def next_at(self) -> float | None:
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        return self._scheduled[0]._when if self._scheduled else None

    def step(self) -> None:
        self.call_soon(self.stop)
        self.run_forever()
        if self.errors:
            raise AssertionError(self.errors)


def _process() -> Process:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop.process


class ModelTransport(Transport):
    """The session's transport over the model broker."""

    look_s = 10.0

    def __init__(self, settings: object, client_id: str, on_message: Any, on_acknowledged: Any) -> None:
        self.process = _process()
        self._on_message, self._on_acknowledged = on_message, on_acknowledged
        self._client_id = client_id
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        self._connected = self._loop.create_future()
        self._subscribing: dict[int, Any] = {}
        self.connection: Connection | None = None
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        self.connection = self.process.hub.dial(self._client_id, KEEPALIVE_S)
        if self.connection is None:
            raise ConnectionEnded("refused")
        self.process.transport = self
        self.process.connected()
        self.heard_at = self.sent_at = self._loop.time()
        self._alive()
        await self.first(self._connected, 15, "the broker did not answer the CONNECT")

    def _alive(self) -> None:
        now = self._loop.time()
        if now - self.heard_at > 1.5 * KEEPALIVE_S:
            self._end("keep-alive")
        elif now - self.sent_at >= KEEPALIVE_S:
            self._send(("ping",))
        self._timer = self._loop.call_later(self.look_s, self._alive)

    def _send(self, packet: Packet) -> None:
        assert self.connection is not None
        self.sent_at = self._loop.time()
        if not self.process.dead:
            self.connection.send(packet)

    def take(self) -> None:
        """Read what has arrived."""
        assert self.connection is not None
        self.heard_at = self._loop.time()
        while self.connection.inbox:
            match self.connection.inbox.popleft():
                case ("connack",):
                    self._connected.set_result("")
                case ("suback", number):
                    self._subscribing.pop(number).set_result([])
                case ("puback", number):
                    self._on_acknowledged(number)
                case ("publish", number, topic, payload, retained):
                    self._send(("puback", number))
                    self.process.told(topic, payload)
                    self._on_message(topic, payload, retained)
        if self.connection.client_closed:
            self._end("closed")

    async def subscribe(self, topics: list[str]) -> list[str]:
        self._numbers += 1
        answer = self._subscribing[self._numbers] = self._loop.create_future()
        self._send(("subscribe", self._numbers, topics))
        await self.first(answer, 15, "no SUBACK")
        return []

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        if self.ended.done():
            return None
        self._numbers += 1
        if topic.endswith("/c"):
            self.process.asked()
        self._send(("publish", self._numbers, topic, payload, retain))
        return self._numbers

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.connection is not None and not self.process.dead:
            self.connection.leave()
        self.process.transport = None


class ModelClient:
    """The API server's client; each call waits in `process.requests` to be executed, then its answer to arrive."""

    def __init__(self, described: object) -> None:
        self.process = _process()

    async def __aenter__(self) -> ModelClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def _ask(self, name: str, work: Callable[[ApiServer], Any]) -> Awaitable[Any]:
        return self.process.ask(name, work)

    async def apply_status(self, plural: str, body: Mapping[str, Any]) -> Any:
        try:
            self.process.deciding(body)
        except AssertionError as error:  # it must not be contained by the bridge
            self.process.untruth = error
        return await self._ask("status", lambda api: api.apply_status(plural, body))

    async def get(self, plural: str, namespace: str, name: str) -> Any:
        return await self._ask("get", lambda api: api.get(plural, name))

    async def list_page(self, plural: str, limit: int, token: str = "", namespace: str | None = None) -> Any:
        return await self._ask("list", lambda api: {"items": api.list(plural), "metadata": {}})

    async def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> Any:
        return await self._ask("finalizer", lambda api: api.set_finalizer(obj, present))

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        await self._ask("event", lambda api: None)

    async def patch_event(self, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        await self._ask("event", lambda api: None)

    @asynccontextmanager
    async def watch_nothing(self, plural: str, namespace: str | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        await self._ask("watch", lambda api: None)
        ended = asyncio.get_running_loop().create_future()
        self.process.guards.append(ended)

        async def lines() -> AsyncIterator[bytes]:
            await ended
            return
            yield b""

        yield lines()


class ModelWatch:
    """What kopf tells: everything as added at the start, then each change; what happens while it is down is lost."""

    again_s = 1.0

    def __init__(self, described: object, namespaces: object, sink: Any) -> None:
        self.process, self.sink = _process(), sink
        self.events: deque[tuple[str, str, Any]] = deque()
        self.loop = asyncio.get_running_loop()

    def start(self) -> None:
        self.process.watch = self
        self._begin()

    def _begin(self) -> None:
        api = self.process.api
        if self._told not in api.watchers:
            if not api.up:
                self.loop.call_later(self.again_s, self._begin)
                return
            for plural in ("boards", "boardmodels"):
                self.events.extend(("ADDED", plural, obj) for obj in api.list(plural))
            api.watchers.append(self._told)

    def _told(self, change: str, plural: str, obj: Any) -> None:
        self.events.append((change, plural, obj))

    def lose(self) -> None:
        """The watch breaks: what has not arrived is lost, and a new one begins soon."""
        self._end()
        self.loop.call_later(0.1, self._begin)

    def restart(self) -> None:
        self._end()
        self.loop.call_later(1.5, self._begin)

    def _end(self) -> None:
        self.events.clear()
        if self._told in self.process.api.watchers:
            self.process.api.watchers.remove(self._told)

    def deliver(self) -> None:
        change, plural, obj = self.events.popleft()
        told = self.sink.on_board if plural == "boards" else self.sink.on_model
        self.loop.call_soon(told, change, obj)

    async def stop(self) -> None:
        self._end()


class NoWatch:
    """The watch of Boards alone: `ModelWatch` tells both kinds."""

    def __init__(self, *_: object) -> None: ...
    def restart(self) -> None: ...

    async def run(self) -> None:
        await asyncio.Event().wait()


class Request:
    """One call on its way."""

    def __init__(self, name: str, work: Callable[[ApiServer], Any], future: asyncio.Future[Any]) -> None:
        self.name, self.work, self.future = name, work, future
        self.answer: Any = None
        self.executed = False


class Process:
    """A bridge from its start to its end."""

    def __init__(self, hub: Hub, api: ApiServer, now: Callable[[], float], seed: int, root_key: Path) -> None:
        self.hub, self.api, self.seed = hub, api, seed
        self.transport: ModelTransport | None = None
        self.watch: ModelWatch | None = None
        self.guards: list[asyncio.Future[None]] = []
        self.requests: deque[Request] = deque()
        self.dead = self.paused = self.api_stalled = self.watch_stalled = False
        self.untruth: AssertionError | None = None
        self.deciding: Callable[[Any], None] = lambda obj: None
        self.told: Callable[[str, bytes], None] = lambda topic, payload: None
        self.asked: Callable[[], None] = lambda: None
        self.connected: Callable[[], None] = lambda: None
        self.loop = Loop(now, self)
        settings = Settings.model_construct(**_DEFAULTS, root_key_file=root_key)
        self.loop.call_soon(self._start, settings)

    def _start(self, settings: Settings) -> None:
        self.bridge = wiring.Bridge(settings)
        self.main = self.loop.create_task(self.bridge.run(asyncio.Event()))

    def ask(self, name: str, work: Callable[[ApiServer], Any]) -> asyncio.Future[Any]:
        future = self.loop.create_future()
        if not self.api.up:
            future.set_exception(Unavailable("away"))
        else:
            self.requests.append(Request(name, work, future))
        return future

    def api_step(self) -> bool:
        """Execute the oldest request, or bring its answer; whether there was one."""
        if self.api_stalled or not self.requests:
            return False
        request = self.requests[0]
        if request.executed:
            self.requests.popleft()
            self._answer(request, request.answer)
            return True
        if not self.api.up:
            request.answer = Unavailable("away")
        else:
            try:
                request.answer = request.work(self.api)
            except ApiError as error:
                request.answer = error
        request.executed = True
        return True

    def _answer(self, request: Request, answer: Any) -> None:
        if request.future.done():
            return
        if isinstance(answer, Exception):
            request.future.set_exception(answer)
        else:
            request.future.set_result(answer)

    def lose_answers(self) -> None:
        """The connection to the API server breaks: nobody knows what was done."""
        for request in self.requests:
            self._answer(request, Unavailable("broken"))
        self.requests.clear()

    def api_away(self) -> None:
        """The API server went away or was restored: watches and requests end."""
        self.lose_answers()
        if self.watch is not None:
            self.watch.lose()
        for guard in self.guards:
            if not guard.done():
                guard.set_result(None)
        self.guards.clear()

    def kill(self) -> None:
        """kill -9: nothing of what it would do at its end happens."""
        self.dead = True
        if self.transport is not None and self.transport.connection is not None:
            self.transport.connection.leave()
        if self.watch is not None:
            self.watch._end()
        self.requests.clear()
        self.loop.set_exception_handler(lambda loop, context: None)
        self.loop.errors.clear()
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.step()
        self.loop.close()

    @property
    def wakes(self) -> int:
        """How many timers its engine holds."""
        return len(self.bridge.engine.steps.alarm) if hasattr(self, "bridge") else 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written or answered."""
        started = hasattr(self, "main") and hasattr(self.bridge.store, "_writer")
        return started and not self.requests and not self.bridge.store.pending

    @property
    def ready(self) -> bool:
        if self.paused or self.dead:
            return False
        return self.loop.ready or self._stirred() or self._watched()

    def _stirred(self) -> bool:
        connection = self.transport.connection if self.transport else None
        if connection is None or self.transport is None:
            return False
        return bool(connection.inbox) or (connection.client_closed and not self.transport.ended.done())

    def _watched(self) -> bool:
        return self.watch is not None and bool(self.watch.events) and not self.watch_stalled

    def step(self) -> None:
        if self._stirred():
            assert self.transport is not None
            self.loop.call_soon(self.transport.take)
        elif self._watched():
            assert self.watch is not None
            self.watch.deliver()
        self.loop.step()
        if self.untruth is not None:
            raise self.untruth
        if hasattr(self, "main") and self.main.done():
            self.main.result()
            raise AssertionError("the bridge ended by itself")


_DEFAULTS = {name: field.default for name, field in Settings.model_fields.items() if name != "root_key_file"} | {
    "http_port": 0,
    "lease_s": 0,
}


class ModelRandom(random.Random):
    """The chance of all processes, from one seed."""


def doors(seed: int, wall: Callable[[], str], board_bucket: str) -> list[tuple[Any, str, Any]]:
    """What has to be exchanged in the bridge's modules: (module, name, value)."""
    chance = ModelRandom(seed)
    secrets = types.SimpleNamespace(
        token_hex=lambda n: f"{chance.getrandbits(8 * n):0{2 * n}x}",
        token_bytes=lambda n: chance.getrandbits(8 * n).to_bytes(n, "big"),
    )
    connection = types.SimpleNamespace(
        find=lambda *_: None, Connection=object, ConnectionInvalid=store_module.connection.ConnectionInvalid
    )
    return [
        (session_module, "Transport", ModelTransport),
        (session_module, "random", chance),
        (session_module, "secrets", secrets),
        (session_module, "BUCKETS", (board_bucket,)),
        (finalizer_module, "random", chance),
        (resync_module, "random", chance),
        (writer_module, "random", chance),
        (wiring, "secrets", secrets),
        (store_module, "KubeClient", ModelClient),
        (store_module, "Watch", ModelWatch),
        (store_module, "BoardWatch", NoWatch),
        (store_module, "connection", connection),
        (snapshot_module, "rfc3339", wall),
    ]
