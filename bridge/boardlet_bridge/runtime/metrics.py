"""What the bridge counts, for Prometheus; one registry a process, so that tests may have several."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

# Ids of boards without an object come from outside: beyond this many they are counted and no longer logged.
MAX_UNKNOWN = 1000


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
        self.warnings = Counter(
            "boardlet_broker_warnings", "Warnings about the broker, by reason", ["reason"], registry=self.registry
        )
        self.broker_up = Gauge("boardlet_broker_up", "1 while the broker is connected", registry=self.registry)
        self.boards = Gauge("boardlet_boards", "Board objects that are served", registry=self.registry)
        self.pending = Gauge("boardlet_status_pending", "Statuses that wait to be written", registry=self.registry)

    def watch(self, boards: Callable[[], float], pending: Callable[[], float]) -> None:
        """Have the gauges read from these whenever they are scraped."""
        self.boards.set_function(boards)
        self.pending.set_function(pending)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
