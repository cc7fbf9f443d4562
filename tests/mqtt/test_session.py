"""The bridge's MQTT session against a real broker: what `up` means, reconnects, and a broker that drops messages."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from pathlib import Path

import broker as brokers
import paho.mqtt.client as paho
import pytest
from boardlet_bridge.mqtt.session import MqttSession, MqttSettings
from boardlet_wire.topic import topic
from broker import Broker
from broker.access import BRIDGE
from provision.process import Process, free_port, listens
from waiting import until

IDS = [f"b{n:07d}" for n in range(2000)]


class Handler:
    """Keeps what the session tells."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.messages: list[tuple[str, str, bytes]] = []
        self.at_up = 0
        self.warnings: list[str] = []

    def on_up(self, buckets: Collection[str]) -> None:
        self.events.append("up")
        self.at_up = len(self.messages)

    def on_down(self, reason: str) -> None:
        self.events.append("down: " + reason)

    def on_message(self, board_id: str, letter: str, topic: str, payload: bytes, retained: bool) -> None:
        self.messages.append((board_id, letter, payload))

    def on_warning(self, reason: str, message: str) -> None:
        self.warnings.append(reason)


@pytest.fixture
def broker(broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "broker", broker_programs)
    made.add_user(BRIDGE, "secret")
    (tmp_path / "password").write_text("secret\n")
    with made:
        yield made


def settings(broker: Broker, **more: object) -> MqttSettings:
    password = broker.folder.parent / "password"
    return MqttSettings(**{"host": "127.0.0.1", "port": broker.port, "user": BRIDGE, "password_file": password, **more})  # type: ignore[arg-type]


def fill(broker: Broker, payload: bytes = b"x") -> None:
    """Retain a mailbox and a session for 2,000 boards."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="fill")
    client.username_pw_set(BRIDGE, "secret")
    client.max_inflight_messages_set(0)
    done: set[int] = set()
    client.on_publish = lambda _c, _u, mid, _r, _p: done.add(mid)
    client.connect("127.0.0.1", broker.port)
    mids = {client.publish(topic(i, letter), payload, qos=1, retain=True).mid for i in IDS for letter in "ds"}
    while not done.issuperset(mids):
        client.loop(0.1)
    client.disconnect()


def test_up_means_that_everything_retained_was_told(broker: Broker) -> None:
    """All 4,000 retained messages have been handed on before on_up, and none twice."""
    fill(broker)

    async def run() -> None:
        handler = Handler()
        task = asyncio.create_task(MqttSession(settings(broker), handler, lambda _: None).run())
        await until(lambda: "up" in handler.events)
        task.cancel()
        assert handler.at_up == 2 * len(IDS)
        assert len({(i, letter) for i, letter, _ in handler.messages}) == 2 * len(IDS)

    asyncio.run(run())


def test_reconnects_after_the_brokers_death(broker: Broker) -> None:
    """A killed broker is told once, and found again when it is back; publishing works as before."""

    async def run() -> None:
        handler = Handler()
        session = MqttSession(settings(broker), handler, lambda _: None)
        task = asyncio.create_task(session.run())
        await until(lambda: session.up)
        broker.kill()
        await until(lambda: not session.up)
        broker.start()
        await until(lambda: session.up)
        session.publish(topic(IDS[0], "d"), b"again", retain=True)
        await until(lambda: (IDS[0], "d", b"again") in handler.messages)
        task.cancel()
        assert handler.events[0] == "up"
        assert handler.events[1].startswith("down: ")
        assert handler.events[-1] == "up"

    asyncio.run(run())


def test_what_is_not_taken_yet_waits_and_is_seen(broker: Broker) -> None:
    """While the bridge is busy, what comes waits in the socket and at the broker, is counted, and is not lost."""

    async def run() -> None:
        handler = Handler()
        session = MqttSession(settings(broker), handler, lambda _: None)
        task = asyncio.create_task(session.run())
        await until(lambda: session.up)
        assert session.unread_bytes == 0
        fill(broker)  # blocks this loop, and with it the bridge
        assert session.unread_bytes > 0
        await until(lambda: len(handler.messages) == 2 * len(IDS))
        await until(lambda: session.unread_bytes == 0)
        session.publish(topic(IDS[0], "d"), b"more", retain=True)
        assert session.waiting == 1
        await until(lambda: session.waiting == 0)
        task.cancel()
        assert len({(i, letter) for i, letter, _ in handler.messages}) == 2 * len(IDS)

    asyncio.run(run())


def test_the_latest_payload_of_a_topic_wins(broker: Broker) -> None:
    """Of many publishes to one topic the last one is what stays, whatever of the others was still waiting."""

    async def run() -> None:
        handler = Handler()
        session = MqttSession(settings(broker), handler, lambda _: None)
        task = asyncio.create_task(session.run())
        await until(lambda: session.up)
        for n in range(3000):
            session.publish(topic(IDS[n % 3], "d"), str(n).encode(), retain=True)
        await until(lambda: all((IDS[n % 3], "d", str(n).encode()) in handler.messages for n in (2997, 2998, 2999)))
        task.cancel()
        last = {i: payload for i, letter, payload in handler.messages if letter == "d"}
        assert [last[IDS[n]] for n in range(3)] == [b"2997", b"2998", b"2999"]

    asyncio.run(run())


def test_wrong_credentials_say_so(broker: Broker, tmp_path: Path) -> None:
    """A broker that refuses the bridge is told with the broker's own reason, once, while it is tried again."""
    (tmp_path / "wrong").write_text("wrong")

    async def run() -> None:
        handler = Handler()
        session = MqttSession(settings(broker, password_file=tmp_path / "wrong"), handler, lambda _: None)
        task = asyncio.create_task(session.run())
        await until(lambda: bool(handler.events))
        task.cancel()
        assert "refuses the bridge" in handler.events[0]

    asyncio.run(run())


def test_topics_of_no_board_are_counted(broker: Broker) -> None:
    """A topic whose bucket does not fit its id is counted and not handed on."""

    async def run() -> None:
        handler, strange = Handler(), []
        session = MqttSession(settings(broker), handler, strange.append)
        task = asyncio.create_task(session.run())
        await until(lambda: session.up)
        wrong = "b/00/k7m2q9xa/s" if topic("k7m2q9xa", "s")[2:4] != "00" else "b/01/k7m2q9xa/s"
        session.publish(wrong, b"x")
        await until(lambda: wrong in strange)
        task.cancel()
        assert handler.messages == []

    asyncio.run(run())


def test_a_broker_that_drops_messages_is_told(broker_programs: brokers.Programs, tmp_path: Path) -> None:
    """A broker whose queues are too short for its clients is told, with the settings that mend it."""
    if broker_programs.name != "mosquitto":
        pytest.skip("mosquitto: mochi-mqtt has no such setting")
    port = free_port()
    queues = "max_queued_messages 5\nmax_inflight_messages 1\nsys_interval 1\n"
    short = f"listener {port} 127.0.0.1\nallow_anonymous true\n{queues}"
    (tmp_path / "short.conf").write_text(short)
    program = broker_programs.program
    server = Process("mosquitto", [program.path, "-c", tmp_path / "short.conf"], log=tmp_path / "log", env=program.env)
    server.start()
    try:
        server.wait_until(lambda: listens(port))
        asyncio.run(_overwhelmed(port))
    finally:
        server.stop()


async def _overwhelmed(port: int) -> None:
    handler = Handler()
    session = MqttSession(MqttSettings("127.0.0.1", port), handler, lambda _: None)
    task = asyncio.create_task(session.run())
    await until(lambda: session.up)
    await until(lambda: session._dropped is not None)  # the count before; a rise is what is told
    slow = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="slow")
    subscribed: list[int] = []
    slow.on_subscribe = lambda *_: subscribed.append(1)
    slow.on_connect = lambda c, *_: c.subscribe("b/#", 1)
    slow.connect("127.0.0.1", port)
    while not subscribed:
        slow.loop(0.1)
    for n in range(200):  # the slow one reads no more, and acknowledges nothing
        session.publish(topic(IDS[n], "c"), b"x")
    await until(lambda: bool(handler.warnings))
    task.cancel()
    slow.disconnect()
    assert handler.warnings[0] == "BrokerDropsMessages"


def test_a_second_bridge_is_told_to_the_first(broker: Broker) -> None:
    """Two bridges at one broker by mistake are noticed; one that comes back after the broker's restart is no second."""

    async def run() -> None:
        first, second = Handler(), Handler()
        one = asyncio.create_task(MqttSession(settings(broker), first, lambda _: None).run())
        await until(lambda: "up" in first.events)
        await asyncio.get_running_loop().run_in_executor(None, broker.restart)
        await until(lambda: first.events.count("up") == 2)
        assert first.warnings == []
        two = asyncio.create_task(MqttSession(settings(broker), second, lambda _: None).run())
        await until(lambda: "up" in second.events and bool(first.warnings))
        assert first.warnings == ["SecondBridge"]
        one.cancel()
        two.cancel()

    asyncio.run(run())
