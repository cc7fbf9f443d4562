"""Edit-to-pin and edit-to-status, and the floor: the same API calls and one MQTT round trip without Boardlet."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from boardlet_cli.site import Site

from .api import WAIT_S, Api

EDITS = 400
BLOCK = 20  # edits and floor take turns in blocks, so that both see the same noise
REST_S = 0.02  # between two: what one sets off (echoes, the board's sensors 10 ms later) is over when the next begins
LED = 2


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """The median and the 99th percentile."""
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        return cls(round(1000 * cuts[49], 2), round(1000 * cuts[98], 2))


class Pins(asyncio.DatagramProtocol):
    """Hears the virtual board's pins change."""

    def __init__(self) -> None:
        self.changed: asyncio.Future[float] | None = None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.changed is not None and not self.changed.done() and data.startswith(b"%d " % LED):
            self.changed.set_result(asyncio.get_running_loop().time())


async def edits(api: Api, pins: Pins, name: str, count: int) -> tuple[list[float], list[float]]:
    """Edit a Board `count` times, one after the other; seconds until its pin changed, and until its status said so."""
    loop = asyncio.get_running_loop()
    to_pin, to_status = [], []
    for n in range(count):
        value = n % 2 == 0

        def confirmed(obj: dict[str, Any], value: bool = value) -> bool:
            status = obj.get("status", {})
            return (
                obj["metadata"]["name"] == name
                and status.get("observedGeneration") == obj["metadata"]["generation"]
                and obj["spec"]["properties"].get("led") is value
                and status.get("reported", {}).get("led") is value
                and any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])
            )

        await asyncio.sleep(REST_S)
        pins.changed = loop.create_future()
        seen = api.seen(confirmed)
        began = loop.time()
        await api.patch(name, {"spec": {"properties": {"led": value}}})
        to_status.append(await asyncio.wait_for(seen, WAIT_S) - began)
        to_pin.append(await asyncio.wait_for(pins.changed, WAIT_S) - began)
    return to_pin, to_status


async def floor(api: Api, echo: Echo, name: str, status: dict[str, Any], count: int, first: int) -> list[float]:
    """What no design can avoid, in seconds: a spec PATCH until a watch shows it, MQTT there and back, and a write of
    a whole `status` by server-side apply, which is the kind that Boardlet writes, until a watch shows it."""
    loop = asyncio.get_running_loop()
    sums = []
    for n in range(first, first + count):
        value = n % 2 == 0
        await asyncio.sleep(REST_S)
        seen = api.seen(_spec(name, value))
        began = loop.time()
        await api.patch(name, {"spec": {"properties": {"led": value}}})
        total = await asyncio.wait_for(seen, WAIT_S) - began
        total += await loop.run_in_executor(None, echo.round_trip)
        written = {**status, "observedGeneration": n + 1, "reported": {**status["reported"], "led": value}}
        seen = api.seen(_status(name, n + 1))
        began = loop.time()
        await api.apply_status(name, written)
        total += await asyncio.wait_for(seen, WAIT_S) - began
        sums.append(total)
    return sums


def _spec(name: str, led: bool) -> Callable[[dict[str, Any]], bool]:
    return lambda o: bool(o["metadata"]["name"] == name and o["spec"]["properties"].get("led") is led)


def _status(name: str, generation: int) -> Callable[[dict[str, Any]], bool]:
    return lambda o: bool(o["metadata"]["name"] == name and o.get("status", {}).get("observedGeneration") == generation)


ECHO = "b/-/bench/d"  # of no bucket: the bridge may use it at the broker, and does not listen to it


class Echo:
    """An MQTT client that publishes at QoS 1 to what it has subscribed itself."""

    def __init__(self, site: Site) -> None:
        self._got = 0
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="bench")  # type: ignore[attr-defined]
        self._client.username_pw_set("boardlet-bridge", (site.folder / "bridge.password").read_text())
        self._client.on_message = self._on_message
        ready: list[int] = []
        self._client.on_subscribe = lambda *_: ready.append(1)
        self._client.connect("127.0.0.1", site.broker.port)
        raw = self._client.socket()
        assert isinstance(raw, socket.socket)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not ready:
            self._client.loop(0.1)
            if not ready and self._client.is_connected():
                self._client.subscribe(ECHO, 1)
                while not ready:
                    self._client.loop(0.1)

    def round_trip(self) -> float:
        """Seconds from a publish to its arrival."""
        before = self._got
        began = time.perf_counter()
        self._client.publish(ECHO, bytes(77), qos=1)
        while self._got == before:
            self._client.loop(0.1)
        return time.perf_counter() - began

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()

    def _on_message(self, *_: object) -> None:
        self._got += 1
