"""What the bridge counts, for Prometheus; one registry a process, so that tests may have several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from boardlet_bridge.core.dropped import BY_BOARD
from boardlet_bridge.core.metric import samples
from boardlet_bridge.core.model import Model
from boardlet_bridge.core.state import Board
from boardlet_bridge.runtime.registry import Name

CAUSES: Final = tuple(BY_BOARD.values())

Measured = Callable[[], Iterable[tuple[Name, Board, Model]]]

log = structlog.get_logger("metrics")

# The library would add the time at which each counter began, a series of its own that Prometheus has no use for.
disable_created_metrics()  # type: ignore[no-untyped-call]


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


class PropertyValues(Collector):
    """What boards reported last of the properties that their models call metrics, read when somebody looks.

    A series' place is taken by its board's being served, whether it answers or not: which series are left out beyond
    `most` does not change while boards come and go. A board has all of its own or none.
    """

    def __init__(self, measured: Measured, most: int) -> None:
        self._measured, self._most = measured, most
        self._said = False

    def collect(self) -> Iterator[GaugeMetricFamily]:
        said = "Last value that a board which answers has reported of a property, where its model says metric: Gauge"
        labels = ["namespace", "board", "model", "property", "unit"]
        values = GaugeMetricFamily("boardlet_property_value", said, labels=labels)
        left_out, room = 0, self._most
        for (namespace, name), board, model in self._measured() if self._most else ():
            series = len(model.metrics)
            if series > room:
                left_out += series
                continue
            room -= series
            for metric, value in samples(board, model):
                values.add_metric([namespace, name, model.name, metric.name, metric.unit], value)
        yield values
        said = "Series of boardlet_property_value that metrics_max_series leaves out"
        yield GaugeMetricFamily("boardlet_property_values_omitted", said, value=left_out)
        if left_out and not self._said:
            why = "more values of boards are metrics than metrics_max_series allows, the others are left out"
            log.warning(why, metrics_max_series=self._most, left_out=left_out)
        self._said = bool(left_out)


class _Collected(Collector):
    # What a registry's collectors have said, to be written down elsewhere.
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


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
        measured: Measured,
        max_series: int,
    ) -> None:
        """Have these read whenever the metrics are scraped."""
        self.registry.register(Received(received))
        self.registry.register(DroppedByBoards(dropped))
        self.registry.register(Conditions(conditions))
        self.registry.register(RootKeys(root_keys))
        self.registry.register(Parts(parts))
        self.registry.register(PropertyValues(measured, max_series))
        self.boards.set_function(boards)
        self.connected.set_function(connected)
        self.pending.set_function(pending)
        self.orphans.set_function(orphans)
        self.broker_up.set_function(broker_up)
        self.unread.set_function(unread)
        self.waiting.set_function(waiting)

    async def text(self) -> bytes:
        """Everything in Prometheus' text format; read at once on the loop, whose state it is, and written beside it."""
        families = list(self.registry.collect())
        return await asyncio.to_thread(generate_latest, _Collected(families))
