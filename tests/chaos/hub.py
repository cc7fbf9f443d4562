"""A model broker: MQTT 3.1.1 at QoS 1 with clean sessions, its faults included.

Packets are tuples. Each connection is two queues in order; a packet moves only when `deliver` says so, so that a test
decides what arrives before what, and what is lost with a connection. Both ends notice a dead connection for themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

Packet = tuple[Any, ...]


def matches(pattern: str, topic: str) -> bool:
    """Whether a filter with single-level wildcards takes a topic."""
    a, b = pattern.split("/"), topic.split("/")
    return len(a) == len(b) and all(x in ("+", y) for x, y in zip(a, b, strict=True))


class Connection:
    """One TCP connection as both ends see it."""

    def __init__(self, hub: Hub, client_id: str, keepalive: int, will: tuple[str, bytes] | None) -> None:
        self.hub, self.client_id, self.keepalive, self.will = hub, client_id, keepalive, will
        self.up: deque[Packet] = deque()
        self.down: deque[Packet] = deque()
        self.inbox: deque[Packet] = deque()  # arrived at the client, not read yet
        self.delivered: deque[Packet] = deque(maxlen=4)
        self.filters: list[str] = []
        self.client_closed = self.broker_closed = False
        self.stalled = False
        self.heard_at = hub.clock()
        self.numbers = 0

    def send(self, packet: Packet) -> None:
        if not self.client_closed:
            self.up.append(packet)

    def leave(self) -> None:
        """The client closes: what it sent still arrives."""
        if not self.client_closed:
            self.up.append(("fin",))
        self.client_closed = True

    def vanish(self) -> None:
        """The client is gone without a word; what it had sent is lost."""
        self.client_closed = True
        self.up.clear()

    def push(self, topic: str, payload: bytes, retained: bool) -> None:
        self.numbers += 1
        self.down.append(("publish", self.numbers, topic, payload, retained))


class Hub:
    """The broker: retained messages, connections, wills; `watch` is told every message that it takes."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.retained: dict[str, bytes] = {}
        self.connections: list[Connection] = []
        self.late_wills: list[tuple[str, bytes]] = []
        self.snapshots: list[dict[str, bytes]] = []
        self.history: list[tuple[str, bytes, bool]] = []
        self.up = True
        self.wills_come_late = False
        self.drop_publishes = self.drop_deliveries = 0
        self.watch: Callable[[str, str, bytes], None] = lambda client, topic, payload: None

    def dial(self, client_id: str, keepalive: int, will: tuple[str, bytes] | None = None) -> Connection | None:
        if not self.up:
            return None
        connection = Connection(self, client_id, keepalive, will)
        connection.up.append(("connect",))
        self.connections.append(connection)
        return connection

    def deliver_up(self, connection: Connection) -> None:
        """The broker reads one packet."""
        packet = connection.up.popleft()
        connection.heard_at = self.clock()
        match packet:
            case ("connect",):
                for other in self.live():
                    if other is not connection and other.client_id == connection.client_id:
                        self.end(other)
                connection.down.append(("connack",))
            case ("publish", number, topic, payload, retain):
                connection.down.append(("puback", number))
                if self.drop_publishes:
                    self.drop_publishes -= 1
                else:
                    self.route(connection.client_id, topic, payload, retain)
            case ("subscribe", number, filters):
                connection.filters += filters
                connection.down.append(("suback", number))
                for topic, payload in sorted(self.retained.items()):
                    if any(matches(pattern, topic) for pattern in filters):
                        connection.push(topic, payload, True)
            case ("ping",):
                connection.down.append(("pong",))
            case ("disconnect",):
                connection.will = None
                self.end(connection)
            case ("fin",):
                self.end(connection)

    def deliver_down(self, connection: Connection) -> None:
        """One packet arrives at the client."""
        packet = connection.down.popleft()
        if not connection.client_closed:
            connection.inbox.append(packet)
            if packet[0] == "publish":
                connection.delivered.append(packet)

    def redeliver(self, connection: Connection, n: int) -> None:
        """At least once: the last messages come again, in their order, behind what is under way."""
        connection.down.extend(list(connection.delivered)[-n:])

    def route(self, client: str, topic: str, payload: bytes, retain: bool) -> None:
        self.watch(client, topic, payload)
        if payload and len(self.history) < 400:
            self.history.append((topic, payload, retain))
        if retain:
            self.retained[topic] = payload
            if not payload:
                del self.retained[topic]
        for connection in self.live():
            if any(matches(f, topic) for f in connection.filters):
                if self.drop_deliveries and connection.client_id.startswith("boardlet-bridge"):
                    self.drop_deliveries -= 1
                else:
                    connection.push(topic, payload, False)

    def end(self, connection: Connection) -> None:
        """The broker ends a connection, or notices that it has ended; the will follows at once or late."""
        if connection.broker_closed:
            return
        connection.broker_closed = True
        connection.up.clear()
        if connection.will:
            if self.wills_come_late:
                self.late_wills.append(connection.will)
            else:
                self.route("will", *connection.will, True)

    def live(self) -> list[Connection]:
        """Those that the broker takes for alive."""
        return [c for c in self.connections if not c.broker_closed]

    def step(self, connection: Connection) -> bool:
        """Move one packet, or the end of the connection, to its other end; whether anything moved."""
        if connection.client_closed and connection.broker_closed:
            self.connections.remove(connection)
            return True
        if connection.stalled:
            return False
        if connection.up and not connection.broker_closed:
            self.deliver_up(connection)
        elif connection.down and not connection.client_closed:
            self.deliver_down(connection)
        elif connection.broker_closed:
            connection.client_closed = True
        else:
            return False
        return True

    def cut(self, connection: Connection, *, lose_up: bool, lose_down: bool) -> None:
        """The connection breaks, and both ends notice; what was under way is lost, or arrives before."""
        if lose_up:
            connection.up.clear()
        while connection.up:
            self.deliver_up(connection)
        if lose_down:
            connection.down.clear()
        self.end(connection)

    def restart(self, retained: dict[str, bytes]) -> None:
        """Everything but what is retained is forgotten, wills too."""
        for connection in self.live():
            connection.will = None
            connection.down.clear()
            self.end(connection)
        self.late_wills.clear()
        self.retained = dict(retained)

    def late(self) -> None:
        """One late will comes."""
        self.route("will", *self.late_wills.pop(0), True)

    def expire(self) -> None:
        """Connections that have been silent for 1.5 keep-alives are over."""
        for connection in self.live():
            if self.clock() - connection.heard_at >= connection.keepalive * 1500:
                self.end(connection)

    def next_at(self) -> int | None:
        return min((c.heard_at + c.keepalive * 1500 for c in self.live()), default=None)
