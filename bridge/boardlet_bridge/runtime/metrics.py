"""What the bridge counts, for Prometheus; one registry a process, so that tests may have several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from boardlet_bridge.core.dropped import BY_BOARD

CAUSES: Final = tuple(BY_BOARD.values())


class Received(Collector):
    """Messages by topic, counted by the engine in a plain dictionary: this is the hottest path of the bridge."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("boardlet_messages", "Messages of boards, by their topic", labels=["topic"])
        for letter, count in self._counts.items():
            family.add_metric([letter], count)
        yield family


class DroppedByBoards(Collector):
    """What boards have dropped, by cause, counted by the engine."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        said = "Messages that boards say they have dropped, by cause"
        family = CounterMetricFamily("boardlet_dropped_by_boards", said, labels=["cause"])
        for cause in CAUSES:
            family.add_metric([cause], self._counts.get(cause, 0))
        yield family


class Conditions(Collector):
    """Boards by condition, counted when somebody looks: reasons are few, boards are many."""

    def __init__(self, count: Callable[[], Mapping[tuple[str, str, str], int]]) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["type", "status", "reason"]
        family = GaugeMetricFamily("boardlet_board_conditions", "Boards that have this condition", labels=labels)
        for condition, boards in sorted(self._count().items()):
            family.add_metric(condition, boards)
        yield family


class RootKeys(Collector):
    """Boards by the root key that their key follows from: before one is removed, its count must be 0."""

    def __init__(self, count: Callable[[], Mapping[int, int]]) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        said = "Boards whose key follows from this root key, by its first key number; 0: it was removed"
        family = GaugeMetricFamily("boardlet_boards_by_root_key", said, labels=["root"])
        for first, boards in sorted(self._count().items()):
            family.add_metric([str(first)], boards)
        yield family


class Parts(Collector):
    """What /readyz says, for alerts: a part that is not well is 0."""

    def __init__(self, parts: Callable[[], Mapping[str, str]]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("boardlet_part_ready", "1 while this part of the bridge is ready", labels=["part"])
        for part, why in self._parts().items():
            family.add_metric([part], 0 if why else 1)
        yield family


class Metrics:
    """Counters of one bridge."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = Counter(
            "boardlet_messages_refused", "Messages that were dropped, by cause", ["cause"], registry=self.registry
        )
        self.unknown = Counter(
            "boardlet_unknown_boards", "Connects of boards that have no Board object", registry=self.registry
        )
        self.writes = Counter(
            "boardlet_status_writes", "Status writes, by outcome", ["outcome"], registry=self.registry
        )
        self.events = Counter(
            "boardlet_events", "Kubernetes Events of Boards, written or dropped", ["outcome"], registry=self.registry
        )
        self.enrollments = Counter(
            "boardlet_enrollments", "Requests to be enrolled, by what they came to", ["outcome"], registry=self.registry
        )
        self.warnings = Counter(
            "boardlet_broker_warnings", "Warnings about the broker, by reason", ["reason"], registry=self.registry
        )
        self.broker_up = Gauge("boardlet_broker_up", "1 while the broker is connected", registry=self.registry)
        self.boards = Gauge("boardlet_boards", "Board objects that are served", registry=self.registry)
        self.connected = Gauge("boardlet_boards_connected", "Boards that answer now", registry=self.registry)
        self.orphans = Gauge(
            "boardlet_orphan_mailboxes", "Mailboxes at the broker that no Board object owns", registry=self.registry
        )
        self.unread = Gauge(
            "boardlet_broker_unread_bytes", "Bytes that wait to be taken from the broker", registry=self.registry
        )
        self.waiting = Gauge(
            "boardlet_publishes_waiting", "Messages to boards that wait for the broker", registry=self.registry
        )
        self.pending = Gauge("boardlet_status_pending", "Statuses that wait to be written", registry=self.registry)

    def watch(
        self,
        boards: Callable[[], float],
        connected: Callable[[], float],
        pending: Callable[[], float],
        orphans: Callable[[], float],
        received: Mapping[str, int],
        dropped: Mapping[str, int],
        conditions: Callable[[], Mapping[tuple[str, str, str], int]],
        root_keys: Callable[[], Mapping[int, int]],
        parts: Callable[[], Mapping[str, str]],
        broker_up: Callable[[], float],
        unread: Callable[[], float],
        waiting: Callable[[], float],
    ) -> None:
        """Have these read whenever the metrics are scraped."""
        self.registry.register(Received(received))
        self.registry.register(DroppedByBoards(dropped))
        self.registry.register(Conditions(conditions))
        self.registry.register(RootKeys(root_keys))
        self.registry.register(Parts(parts))
        self.boards.set_function(boards)
        self.connected.set_function(connected)
        self.pending.set_function(pending)
        self.orphans.set_function(orphans)
        self.broker_up.set_function(broker_up)
        self.unread.set_function(unread)
        self.waiting.set_function(waiting)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
