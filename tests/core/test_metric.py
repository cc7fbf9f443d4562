"""Metrics of boards: what a model may say, that no board hears of it, and that only what is true now is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from boardlet_bridge.core.metric import samples
from boardlet_bridge.core.model import compile_model
from boardlet_bridge.core.value import ModelError
from boardlet_wire.names import Health, PropertyCode
from peer import GREENHOUSE, World, model, ready

MEASURED: dict[str, Any] = copy.deepcopy(GREENHOUSE)
for _prop in MEASURED["properties"][:3]:
    _prop["metric"] = "Gauge"
MEASURED["properties"][2] |= {"unit": "Cel", "driver": {"type": "Adc", "pins": [34]}}
MODEL = compile_model("greenhouse", MEASURED)


class Greenhouse(World):
    """A world whose board has the model above; `told` are its metrics."""

    @property
    def told(self) -> dict[str, float]:
        return {metric.name: value for metric, value in samples(self.board, MODEL)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Greenhouse:
    monkeypatch.setattr("peer.GREENHOUSE", MEASURED)
    made = Greenhouse()
    made.side.values[2] = 20.5
    made.connect_broker()
    made.join()
    return made


ALL = {"led": 1.0, "target": 20.0, "temp": 20.5}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": "String", "metric": "Gauge"}, "metric must be set for Boolean, Integer and Number only"),
        ({"type": "Enum", "values": ["A"], "metric": "Gauge"}, "metric must be set for Boolean, Integer and"),
        ({"type": "Array", "items": {"type": "Number"}, "maxItems": 2, "metric": "Gauge"}, "metric must be set"),
        ({"type": "Number", "metric": "Counter"}, "metric must be Gauge, is 'Counter'"),
        ({"type": "Number", "metric": True}, "metric must be Gauge, is True"),
    ],
)
def test_what_is_no_number_is_no_metric(fields: dict[str, Any], says: str) -> None:
    """A model that calls a word or a list a metric is refused, with the property's name and what may be."""
    with pytest.raises(ModelError, match="property 'x': ") as refused:
        compile_model("m", {"properties": [{"name": "x", "index": 0, "access": "ReadOnly", **fields}]})
    assert says in str(refused.value)


def test_boards_hear_nothing_of_metrics() -> None:
    """A model with metrics has the bytes and the digest of the one without, and is the same to its boards."""
    plain = copy.deepcopy(MEASURED)
    for prop in plain["properties"]:
        prop.pop("metric", None)
    before = compile_model("greenhouse", plain)
    assert (MODEL.encoded, MODEL.digest) == (before.encoded, before.digest)
    assert before == MODEL
    assert [(m.name, m.unit) for m in MODEL.metrics] == [("led", ""), ("target", ""), ("temp", "Cel")]
    assert before.metrics == ()


def test_an_absent_board_has_no_values(world: Greenhouse) -> None:
    """Values are told while the board answers, and no stale one of a board that is gone, silent, or not known of."""
    assert world.told == ALL
    world.send(world.side.gone())
    assert world.told == {}
    world.join()
    assert world.told == ALL
    world.lose_broker()
    assert world.told == {}
    world.connect_broker()
    assert world.told == {}, "asked, but not answered yet: what its status shows may be old"
    world.join()
    assert world.told == ALL
    world.wait(3600)
    assert world.condition("Connected") == ("False", "Silent")
    assert world.told == {}


def test_a_bridge_that_starts_tells_nothing_it_has_not_heard(world: Greenhouse) -> None:
    """What an earlier bridge wrote into the status is no sample of this one."""
    assert world.status["reported"]["temp"] == 20.5
    world.start_bridge()
    assert world.board.reported["temp"] == 20.5
    assert world.told == {}


def test_a_sleeping_board_keeps_its_values_until_it_is_late(world: Greenhouse) -> None:
    """Between its turns a board on a battery has the values that it fell asleep with; an overdue one has none."""
    world.send(world.side.asleep(600))
    assert world.condition("Connected") == ("True", "Asleep")
    assert world.told == ALL
    world.wait(2 * 600 + 61)
    assert world.condition("Connected") == ("False", "Overdue")
    assert world.told == {}


def test_what_has_failed_has_no_value(world: Greenhouse) -> None:
    """A sensor in error has none until it is well; when app.py fails, what it measures has none, and drivers go on."""
    world.send(world.side.report({-3: {2: int(PropertyCode.DRIVER_FAILED)}}))
    assert world.board.reported["temp"] == 20.5
    assert world.told == {"led": 1.0, "target": 20.0}
    world.send(world.side.report({-3: {2: 0}, 2: 21.5}))
    assert world.told == {**ALL, "temp": 21.5}
    world.send(world.side.report({-8: int(Health.APP_FAILED)}))
    assert world.told == {"temp": 21.5}
    world.join(_17=True)
    assert world.condition("Healthy") == ("False", "SafeMode")
    assert world.told == {}


def test_another_models_values_are_not_told() -> None:
    """A board that has not become its model yet says nothing under that model's names."""
    world = ready()
    other = copy.deepcopy(GREENHOUSE)
    other["properties"][1] |= {"metric": "Gauge", "maximum": 36}
    newer = compile_model("greenhouse", other)
    assert newer.digest != model().digest
    assert world.board.reported["target"] == 20
    assert list(samples(world.board, newer)) == []
