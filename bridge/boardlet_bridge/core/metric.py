"""Metrics: which numbers of a board are telemetry, by its model, and which of them are true now.

What a model says here is the bridge's business alone: no byte of it reaches a board, and no board is asked for more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from boardlet_wire.names import Health

from boardlet_bridge.core.value import NUMERIC, ModelError

if TYPE_CHECKING:
    from boardlet_bridge.core.model import Model
    from boardlet_bridge.core.state import Board

GAUGE: Final = "Gauge"
MEASURABLE: Final = ("Boolean", *NUMERIC)


@dataclass(frozen=True, slots=True)
class Metric:
    """A property whose last reported value is told as a metric."""

    name: str
    index: int
    unit: str
    driven: bool
    """Whether a driver gives its value; else the board's app.py does."""


def compile_metric(where: str, raw: Mapping[str, Any]) -> Metric | None:
    """The metric that a property is, None where it is none; `where` begins the message of a ModelError."""
    kind = raw.get("metric")
    if kind is None:
        return None
    if kind != GAUGE:
        raise ModelError(f"{where}: metric must be {GAUGE}, is {kind!r:.40}")
    if raw["type"] not in MEASURABLE:
        raise ModelError(f"{where}: metric must be set for Boolean, Integer and Number only")
    return Metric(str(raw["name"]), int(raw["index"]), str(raw.get("unit") or ""), bool(raw.get("driver")))


def samples(board: Board, model: Model) -> Iterator[tuple[Metric, float]]:
    """What is true of the board now; nothing of one that is away, has another model, or says that it has failed.

    A board that sleeps in order has the values that it fell asleep with, as its status does.
    """
    birth = board.birth
    if not board.present or birth is None or birth.model_digest != model.digest or birth.safe_mode:
        return
    for metric in model.metrics:
        value = board.reported.get(metric.name)
        measured = metric.index not in board.board_errors and (metric.driven or board.health == Health.RUNNING)
        if measured and isinstance(value, int | float):
            yield metric, float(value)
