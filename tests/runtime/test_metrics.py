"""Values of boards as metrics: which series there are, within which bound, and what they cost boards (nothing)."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.state import Birth, Limits, Link
from boardlet_bridge.runtime.engine import Engine
from boardlet_bridge.runtime.metrics import Metrics, PropertyValues
from boardlet_wire.topic import bucket
from outlet import Outlet, board
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

MODEL: dict[str, Any] = {
    "metadata": {"namespace": "default", "name": "m", "uid": "u", "resourceVersion": "1", "generation": 1},
    "spec": {
        "properties": [
            {"name": "light", "index": 0, "type": "Number", "access": "ReadOnly", "unit": '"lx"\\'},
            {"name": "door", "index": 1, "type": "Boolean", "access": "ReadOnly", "metric": "Gauge"},
        ]
    },
}
KEY = ("boardmodels", "default", "m")


def edited(**light: str) -> dict[str, Any]:
    """The model with this in its property light."""
    made = copy.deepcopy(MODEL)
    made["metadata"] |= {"generation": 2, "resourceVersion": "2"}
    made["spec"]["properties"][0] |= light
    return made


def answers(engine: Engine, number: int, **reported: float) -> None:
    """This board is there, has its model, and has reported that."""
    found = engine.registry.entries["default", f"g{number}"].board
    assert found.model is not None
    found.link, found.birth = Link.LIVE, Birth({}, 1024, found.model.digest, b"", False)
    found.reported = dict(reported)


@pytest.fixture
def engine(outlet: Outlet) -> Engine:
    made = Engine(KeyRing(bytes(32), bytes(16)), Limits(), outlet)
    made.on_model("ADDED", edited(metric="Gauge"))
    for number in (1, 2, 3):
        made.on_board("ADDED", board(number))
    made.on_listed()
    made.on_up()
    for number in (1, 2, 3):
        answers(made, number, light=number + 0.5, door=number == 1)
    return made


def scraped(engine: Engine, most: int = 100) -> tuple[dict[tuple[str, str], float], float]:
    """Values by board and property, and how many series were left out."""
    values, omitted = PropertyValues(engine.census.measured, most).collect()
    told = {(s.labels["board"], s.labels["property"]): s.value for s in values.samples}
    return told, omitted.samples[0].value


def test_a_scrape_has_the_values_of_boards_that_answer(engine: Engine) -> None:
    """Prometheus' own parser reads each value with its labels; a board that is gone has none."""
    metrics = Metrics()
    metrics.registry.register(PropertyValues(engine.census.measured, 100))
    engine.registry.entries["default", "g2"].board.link = Link.GONE
    text = asyncio.run(metrics.text()).decode()
    [family] = [f for f in text_string_to_metric_families(text) if f.name == "boardlet_property_value"]
    told = [({**s.labels}, s.value) for s in family.samples]
    same = {"namespace": "default", "model": "m"}
    light, door = {"property": "light", "unit": '"lx"\\'}, {"property": "door", "unit": ""}
    assert told == [
        ({**same, "board": "g1", **light}, 1.5),
        ({**same, "board": "g1", **door}, 1.0),
        ({**same, "board": "g3", **light}, 3.5),
        ({**same, "board": "g3", **door}, 0.0),
    ]


def test_what_is_over_the_bound_is_left_out_and_stays_so(engine: Engine) -> None:
    """The Boards that were met first keep their places, each whole, also while one is away; the rest is counted."""
    told, omitted = scraped(engine, most=5)
    assert {name for name, _ in told} == {"g1", "g2"}
    assert len(told) == 4
    assert omitted == 2
    engine.registry.entries["default", "g1"].board.link = Link.GONE
    told, omitted = scraped(engine, most=5)
    assert {name for name, _ in told} == {"g2"}
    assert omitted == 2
    engine.on_board("DELETED", board(1))
    told, omitted = scraped(engine, most=5)
    assert {name for name, _ in told} == {"g2", "g3"}
    assert omitted == 0
    assert scraped(engine, most=1) == ({}, 4)
    assert scraped(engine, most=0) == ({}, 0), "nobody wants them: nothing is missed"


def test_the_bound_is_said_once(engine: Engine) -> None:
    """The log names the setting and how much is left out when that begins, and not at every scrape."""
    collector = PropertyValues(engine.census.measured, 5)
    with capture_logs() as said:
        for _ in range(3):
            list(collector.collect())
    assert [(line["metrics_max_series"], line["left_out"]) for line in said] == [(5, 2)]


def test_a_replica_tells_what_it_serves(engine: Engine) -> None:
    """Boards that another replica serves have no value here, and take no place."""
    engine.release([bucket("board0001")])
    told, omitted = scraped(engine, most=4)
    assert {name for name, _ in told} == {"g2", "g3"}
    assert omitted == 0


def test_what_is_a_metric_can_change_without_a_word_to_boards(engine: Engine, outlet: Outlet) -> None:
    """An edit of `metric` alone is seen at the next scrape; nothing is sent, and only the model's status is written."""
    outlet.published.clear()
    outlet.marks.clear()
    engine.on_model("MODIFIED", MODEL)
    told, _ = scraped(engine)
    assert set(told) == {("g1", "door"), ("g2", "door"), ("g3", "door")}
    assert outlet.published == []
    assert outlet.marks == [KEY]
    engine.on_model("MODIFIED", edited(metric="Gauge"))
    told, _ = scraped(engine)
    assert len(told) == 6
    assert outlet.published == []


def test_a_models_status_follows_words_for_people(engine: Engine, outlet: Outlet) -> None:
    """A new description rolls to no board, but the model's status says that it is about this generation."""
    body = engine.snapshot(KEY)
    assert body is not None
    assert body["status"]["observedGeneration"] == 2
    outlet.published.clear()
    outlet.marks.clear()
    newer = edited(metric="Gauge", description="at the window")
    newer["metadata"] |= {"generation": 3, "resourceVersion": "3"}
    engine.on_model("MODIFIED", {**newer, "status": body["status"]})
    assert (outlet.published, outlet.marks) == ([], [KEY])
    body = engine.snapshot(KEY)
    assert body is not None
    assert body["status"]["observedGeneration"] == 3


def test_a_broken_model_has_no_metrics(engine: Engine) -> None:
    """A model that cannot be compiled any more takes its series away, and the scrape goes on."""
    broken = edited(metric="Gauge", type="String")
    engine.on_model("MODIFIED", broken)
    assert scraped(engine) == ({}, 0)
