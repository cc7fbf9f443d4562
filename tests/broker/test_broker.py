"""The demo's brokers keep their word: credentials, access, persistence, queues; mosquitto and mochi-mqtt alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from broker import Broker, Programs, find
from broker.access import BRIDGE
from fakes.login import Login
from provision.missing import Missing

WAIT_S = 20.0


@pytest.fixture(scope="module", params=["mosquitto", "mochi"])
def programs(request: pytest.FixtureRequest) -> Programs:
    patch = pytest.MonkeyPatch()
    patch.setenv("BOARDLET_BROKER", request.param)
    try:
        return find()
    except Missing as missing:
        pytest.skip(str(missing))
    finally:
        patch.undo()


@pytest.fixture
def broker(programs: Programs, tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path, programs)
    made.add_user(BRIDGE, "bridge-secret")
    made.add_user("k7m2q9xa", "secret-a")
    made.add_user("zzzzzzzz", "secret-z")
    with made:
        yield made


class Client:
    """A paho client that keeps what it receives and can be waited on."""

    def __init__(self, broker: Broker, user: str, password: str, will: str = "") -> None:
        self.got: list[tuple[str, bytes]] = []
        self.codes: list[int] = []
        self.acknowledged: set[int] = set()
        self.gone = False
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=user)
        self.paho.username_pw_set(user, password)
        self.paho.max_inflight_messages_set(0)
        if will:
            self.paho.will_set(will, b"will", qos=1)
        self.paho.on_connect = lambda c, u, f, code, p: self.codes.append(code.value)
        self.paho.on_message = lambda c, u, m: self.got.append((m.topic, m.payload))
        self.paho.on_publish = lambda c, u, mid, code, p: self.acknowledged.add(mid)
        self.paho.on_disconnect = lambda c, u, f, code, p: setattr(self, "gone", True)
        self.paho.connect("127.0.0.1", broker.port)

    def until(self, true: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        deadline = time.monotonic() + timeout_s
        while not true() and time.monotonic() < deadline:
            self.paho.loop(0.05)
        return true()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        sent = self.paho.publish(topic, payload, qos=1, retain=retain)
        assert self.until(lambda: sent.mid in self.acknowledged or self.gone)

    def subscribe(self, *topics: str) -> None:
        done: list[int] = []
        self.paho.on_subscribe = lambda c, u, mid, codes, p: done.append(mid)
        for topic in topics:
            self.paho.subscribe(topic, 1)
        assert self.until(lambda: len(done) == len(topics))


@contextlib.contextmanager
def client(broker: Broker, user: str, password: str, will: str = "") -> Iterator[Client]:
    made = Client(broker, user, password, will)
    try:
        made.until(lambda: bool(made.codes))
        yield made
    finally:
        made.paho.disconnect()


def test_strangers_stay_outside(broker: Broker) -> None:
    """A wrong password and no password at all are refused; the right one is let in."""
    with client(broker, "k7m2q9xa", "secret-a") as board:
        assert board.codes == [0]
    for user, password in (("k7m2q9xa", "wrong"), ("nobody00", "secret-a")):
        with client(broker, user, password) as stranger:
            assert 0 not in stranger.codes


def test_nobody_is_thrown_off_by_his_client_id(broker: Broker) -> None:
    """Whoever comes in where boards do with another's or the bridge's client id ends no connection but his own."""
    with client(broker, BRIDGE, "bridge-secret") as bridge, Login(broker.board_port, "k7m2q9xa", "secret-a") as board:
        for taken in ("k7m2q9xa", BRIDGE, ""):
            with Login(broker.board_port, "zzzzzzzz", "secret-z", taken):
                bridge.publish("b/00/k7m2q9xa/c", b"still here")
                assert not bridge.gone
                assert not board.gone


def test_a_board_speaks_for_itself_alone(broker: Broker) -> None:
    """What a board publishes on another board's topic, on `d`, or as a foreign will, reaches nobody."""
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        bridge.subscribe("b/+/+/s", "b/+/+/r", "b/+/+/d")
        # mosquitto drops what is forbidden, mochi closes the connection, or refuses it for a forbidden will.
        with client(broker, "zzzzzzzz", "secret-z", will="b/00/k7m2q9xa/s") as thief:
            if connection := thief.paho.socket():
                connection.close()
        with client(broker, "zzzzzzzz", "secret-z") as thief:
            thief.publish("b/00/k7m2q9xa/r", b"forged")
            if not thief.gone:
                thief.publish("b/00/zzzzzzzz/d", b"forged")
        with client(broker, "k7m2q9xa", "secret-a") as board:
            board.publish("b/00/k7m2q9xa/r", b"own")
        assert bridge.until(lambda: ("b/00/k7m2q9xa/r", b"own") in bridge.got)
        assert bridge.got == [("b/00/k7m2q9xa/r", b"own")]


def test_a_board_hears_its_own_topics_alone(broker: Broker) -> None:
    """A subscription to everything yields a board what is meant for it, and nothing of others."""
    with client(broker, "k7m2q9xa", "secret-a") as board, client(broker, BRIDGE, "bridge-secret") as bridge:
        with contextlib.suppress(AssertionError):  # mochi refuses the SUBSCRIBE itself, which is as good
            board.subscribe("#")
        if not board.gone:
            board.subscribe("b/00/k7m2q9xa/c")
            bridge.publish("b/00/zzzzzzzz/c", b"other")
            bridge.publish("b/00/k7m2q9xa/c", b"mine")
            assert board.until(lambda: bool(board.got))
            assert {topic for topic, _ in board.got} == {"b/00/k7m2q9xa/c"}


def test_a_power_cut_keeps_what_is_retained(broker: Broker) -> None:
    """Retained messages survive a kill -9 once the store has been written (every 30 s, docs/operations.md)."""
    broker.stop()
    broker.autosave_s = 1
    broker.start()
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        bridge.publish("b/00/k7m2q9xa/d", b"kept", retain=True)
    data = broker.folder / "data"

    def stored() -> bool:
        # mosquitto writes a file ….new and renames it; mochi stores base64.
        return any(word in file.read_bytes() for file in data.glob("*.db") for word in (b"kept", b"a2VwdA=="))

    broker.process.wait_until(stored, WAIT_S)
    broker.kill()
    broker.start()
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        bridge.subscribe("b/+/+/d")
        assert bridge.until(lambda: bridge.got == [("b/00/k7m2q9xa/d", b"kept")])


def test_a_lost_disk_loses_what_was_retained(broker: Broker) -> None:
    """`restart(keep_retained=False)` is a broker that has forgotten everything: tests of a lost mailbox rely on it."""
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        bridge.publish("b/00/k7m2q9xa/d", b"kept", retain=True)
    broker.restart(keep_retained=False)
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        bridge.subscribe("b/+/+/d")
        bridge.publish("b/00/zzzzzzzz/d", b"after")
        assert bridge.until(lambda: bool(bridge.got))
        assert bridge.got == [("b/00/zzzzzzzz/d", b"after")]


def test_a_fleet_of_mailboxes_is_replayed_whole(broker: Broker) -> None:
    """All of 5,000 retained messages come to a new wildcard subscription: the queue is not the default one."""
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        mids = [bridge.paho.publish(f"b/00/b{n:07d}/d", b"x", qos=1, retain=True).mid for n in range(5000)]
        assert bridge.until(lambda: bridge.acknowledged.issuperset(mids), 60)
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        bridge.subscribe("b/+/+/d")
        assert bridge.until(lambda: len(bridge.got) == 5000, 60)


def test_a_removed_credential_ends_its_connection(broker: Broker) -> None:
    """Removing one user disconnects that user at once and nobody else."""
    with client(broker, "k7m2q9xa", "secret-a") as board, client(broker, "zzzzzzzz", "secret-z") as other:
        broker.remove_user("k7m2q9xa")
        assert board.until(lambda: board.gone)
        other.publish("b/00/zzzzzzzz/r", b"still here")
        assert not other.gone


def test_one_credential_cannot_fill_everybodys_memory(broker: Broker) -> None:
    """A packet that nobody could read ends its sender's connection, and is not retained."""
    with client(broker, "k7m2q9xa", "secret-a") as board:
        board.publish("b/00/k7m2q9xa/r", bytes(8192 + 16), retain=True)
        assert not board.gone
        board.publish("b/00/k7m2q9xa/s", bytes(200_000), retain=True)
        assert board.gone
    with client(broker, BRIDGE, "bridge-secret") as bridge:
        bridge.subscribe("b/+/+/s", "b/+/+/r")
        assert bridge.until(lambda: bridge.got != [])
        assert [(topic[-1], len(payload)) for topic, payload in bridge.got] == [("r", 8192 + 16)]
