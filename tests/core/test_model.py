"""Models and values: what compiles to which bytes, what is refused in which words, and that both forms say the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
import yaml
from boardlet_bridge.core.codec import MAX_PAYLOAD_BYTES
from boardlet_bridge.core.desired import build_state
from boardlet_bridge.core.event import ModelSeen
from boardlet_bridge.core.model import AGENT_RECEIVES_BYTES, Model, Property, compile_model
from boardlet_bridge.core.value import ModelError, ValueRefused
from boardlet_wire import cbor
from hypothesis import given
from hypothesis import strategies as st
from peer import World, ready

ROOT = Path(__file__).parents[2]
THERMOSTAT = yaml.safe_load((ROOT / "crds/samples/thermostat.yaml").read_text())["spec"]
MODEL = compile_model("thermostat", THERMOSTAT)
VALUES = {
    "mode": ("Heat", 1),
    "target": (21.5, 21.5),
    "limits": ({"low": 6.5, "high": 30, "alarm": False}, [6.5, 30.0, False]),
    "week": ([6, 7, 8], [6, 7, 8]),
    "serial": ("AP8=", b"\x00\xff"),
    "pump": (True, True),
    "fan": (55, 55),
    "display": ("Grüße", "Grüße"),
}


def one(**fields: Any) -> Property:
    """A property of these fields."""
    spec = {"properties": [{"name": "x", "index": 0, "access": "ReadWrite", **fields}]}
    return compile_model("m", spec).by_index[0]


def with_driver(type_: str, driver: str, access: str = "ReadOnly", **fields: Any) -> dict[str, Any]:
    limits = {k: fields.pop(k) for k in ("minimum", "maximum") if k in fields}
    return {"type": type_, "access": access, **limits, "driver": {"type": driver, "pins": [1], **fields}}


@pytest.mark.parametrize("name", VALUES)
def test_both_forms_of_a_value(name: str) -> None:
    """A value of every type goes to the wire and comes back as it was written."""
    prop = MODEL.by_name[name]
    written, wire = VALUES[name]
    assert prop.to_wire(written) == wire
    assert prop.from_wire(wire) == written


@given(st.data())
def test_any_value_comes_back(data: st.DataObject) -> None:
    """Whatever the bridge accepts, it shows as the same value again, and boards can decode it."""
    text = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
    limits = st.fixed_dictionaries(
        {"low": st.floats(5, 35, width=32), "high": st.integers(5, 35), "alarm": st.booleans()}
    )
    examples = {
        "mode": st.sampled_from(["Idle", "Heat", "Cool"]),
        "target": st.floats(5, 35, width=32),
        "limits": limits,
        "week": st.lists(st.integers(0, 23), max_size=7),
        "display": text,
    }
    name = data.draw(st.sampled_from(sorted(examples)))
    prop = MODEL.by_name[name]
    wire = prop.to_wire(data.draw(examples[name]))
    assert prop.to_wire(prop.from_wire(wire)) == wire
    assert cbor.loads(cbor2.dumps({0: wire}, canonical=True)) == {0: wire}


@given(st.sampled_from(sorted(MODEL.by_name)), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6,
))  # fmt: skip
def test_nonsense_is_refused_and_raises_nothing_else(name: str, value: Any) -> None:
    """Any object at all is taken or refused with a reason, from a user as from a board."""
    reasons = set()
    for convert in (MODEL.by_name[name].to_wire, MODEL.by_name[name].from_wire):
        try:
            json.dumps(convert(value), default=bytes.hex, allow_nan=False)
        except ValueRefused as error:
            reasons.add(error.reason)
    assert reasons <= {"WrongType", "OutOfRange", "TooLong"}


@pytest.mark.parametrize(
    ("fields", "value", "reason", "message"),
    [
        ({"type": "Boolean"}, 1, "WrongType", "must be of type Boolean, is 1"),
        ({"type": "Integer", "maximum": 35}, 40, "OutOfRange", "must be at most 35, is 40"),
        ({"type": "Integer"}, 1.5, "WrongType", "must be of type Integer, is 1.5"),
        ({"type": "Integer"}, 2**31, "OutOfRange", "must fit 32 bits, is 2147483648"),
        ({"type": "Integer", "minimum": -2000000000}, -2000000001, "OutOfRange", "must be at least -2000000000"),
        ({"type": "Number", "minimum": 0.1}, 0.05, "OutOfRange", "must be at least 0.1, is 0.05"),
        ({"type": "Number"}, True, "WrongType", "must be of type Number, is true"),
        ({"type": "Number"}, 1e39, "OutOfRange", "must be a single-precision number"),
        ({"type": "String", "maxLength": 4}, "Grün", "TooLong", "must be at most 4 bytes, is 5"),
        ({"type": "String"}, "\ud800", "WrongType", "must be Unicode text"),
        ({"type": "Enum", "values": ["Idle", "Heat"]}, "Cool", "OutOfRange", 'must be one of Idle, Heat, is "Cool"'),
        ({"type": "Enum", "values": ["Idle", "Heat"]}, 1, "WrongType", "must be of type Enum, is 1"),
        ({"type": "Bytes", "maxLength": 2}, "AAAA", "TooLong", "must be at most 2 bytes, is 3"),
        ({"type": "Bytes"}, "%%%", "WrongType", 'must be base64, is "%%%"'),
        ({"type": "Array", "items": {"type": "Integer", "maximum": 9}, "maxItems": 2}, [1, 2, 3], "TooLong",
         "x: must be at most 2 items, is 3"),
        ({"type": "Array", "items": {"type": "Integer", "maximum": 9}, "maxItems": 2}, [1, 10], "OutOfRange",
         "x[1]: must be at most 9, is 10"),
        ({"type": "Record", "fields": [{"name": "max", "type": "Number", "maximum": 35}]}, {"max": 40}, "OutOfRange",
         "x.max: must be at most 35, is 40"),
        ({"type": "Record", "fields": [{"name": "max", "type": "Number"}]}, {"min": 4}, "WrongType",
         "x: must have the fields max and no other, has min"),
    ],
)  # fmt: skip
def test_refusals_say_what_must_be(fields: dict[str, Any], value: Any, reason: str, message: str) -> None:
    """A value that is not the property's is refused with a reason, the element concerned, what must be and what is."""
    with pytest.raises(ValueRefused) as refused:
        one(**fields).to_wire(value)
    assert refused.value.reason == reason
    assert message in str(refused.value)


def test_a_limit_itself_is_allowed() -> None:
    """A limit that single precision rounds is compared as boards compare it: 0.1 is not above 0.1."""
    assert one(type="Number", minimum=0.1, maximum=0.1).to_wire(0.1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": "Float"}, "type must be one of"),
        ({"type": "Boolean", "minimum": 1}, "minimum must be set for Integer and Number only"),
        ({"type": "Number", "minimum": 2, "maximum": 1}, "maximum must be at least minimum"),
        ({"type": "Integer", "minimum": 0.5}, "must be whole numbers of 32 bits"),
        ({"type": "Number", "maximum": 1e300}, "must be single-precision numbers"),
        ({"type": "String", "maxLength": 129}, "maxLength must be from 1 to 128"),
        ({"type": "Enum"}, "KeyError('values')"),
        ({"type": "Enum", "values": ["A", "A"]}, "values must be 1 to 32 different words"),
        ({"type": "Record"}, "fields must be 1 to 8"),
        ({"type": "Record", "fields": [{"name": "a", "type": "Array"}]}, "field 'a': type must be one of"),
        ({"type": "Array", "items": {"type": "Record"}, "maxItems": 1}, "its items: type must be one of"),
        ({"type": "Array", "items": {"type": "Integer"}, "maxItems": 33}, "maxItems must be from 1 to 32"),
        ({"type": "String", "report": {"deadband": 1}}, "deadband must be set for Integer and Number only"),
        ({"type": "Number", "maximum": 35, "default": 40}, "its default must be at most 35, is 40 (OutOfRange)"),
        ({"type": "Number", "access": "ReadOnly", "default": 4}, "its default must not be set"),
        (with_driver("Number", "GpioOut", "ReadWrite"), "GpioOut must be Boolean with access ReadWrite"),
        (with_driver("Number", "PwmOut", "ReadWrite"), "must have a minimum and a greater maximum"),
        (with_driver("Number", "Sht3x", address=0x44, measures="Humidity"), "pins of Sht3x must be 2"),
        (with_driver("Number", "Sht3x", pins=[1, 2], address=0x44), "measures must be set for Sht3x"),
        (with_driver("Number", "Bh1750", pins=[1, 2]), "address must be set for Bh1750"),
        (with_driver("String", "Uart", pins=[1, 2]), "bus must be set for Uart"),
        (with_driver("Number", "Adc", pull="Up"), "pull must not be set for Adc"),
        (with_driver("Number", "Relay"), "unknown driver 'Relay'"),
    ],
)
def test_models_that_no_board_could_run(fields: dict[str, Any], says: str) -> None:
    """What the API server would refuse is refused by the compiler too, with the property's name."""
    with pytest.raises(ModelError) as refused:
        one(**fields)
    assert "property 'x'" in str(refused.value)
    assert says in str(refused.value)


I2C = {"type": "Sht3x", "pins": [22, 21], "address": 0x44, "measures": "Humidity"}
ROM = "28ff641e0f160354"


@pytest.mark.parametrize(
    ("a", "b", "allowed"),
    [
        (I2C, {**I2C, "measures": "Temperature"}, True),
        (I2C, {"type": "Bh1750", "pins": [22, 21], "address": 0x23}, True),
        (I2C, {"type": "Bh1750", "pins": [21, 22], "address": 0x23}, False),
        (I2C, {"type": "Bh1750", "pins": [22, 4], "address": 0x23}, False),
        (I2C, {"type": "Adc", "pins": [21]}, False),
        (
            {"type": "Ds18x20", "pins": [4], "romCode": ROM},
            {"type": "Ds18x20", "pins": [4], "romCode": ROM[::-1]},
            True,
        ),
        ({"type": "Ds18x20", "pins": [4], "romCode": ROM}, {"type": "Ds18x20", "pins": [4]}, False),
        ({"type": "Ds18x20", "pins": [4]}, {"type": "Ds18x20", "pins": [5]}, True),
    ],
)
def test_pins_are_shared_on_a_bus_only(a: dict[str, Any], b: dict[str, Any], allowed: bool) -> None:
    """Two drivers may have their pins in common if these are one bus, and not otherwise."""
    spec = {
        "properties": [
            {"name": name, "index": i, "type": "Number", "access": "ReadOnly", "driver": driver}
            for i, (name, driver) in enumerate((("a", a), ("b", b)))
        ]
    }
    if allowed:
        compile_model("m", spec)
    else:
        with pytest.raises(ModelError, match=r"property 'b': pin [0-9, ]+ is used by 'a' already"):
            compile_model("m", spec)


def test_a_compiled_model_is_small_and_shallow() -> None:
    """A property of every type and driver, thirteen in all, is under a kilobyte, and boards can decode its depth."""
    assert len(MODEL.encoded) < 1024
    assert len(cbor.loads(MODEL.encoded)[1]) == 13


def test_the_worst_case_is_told_when_the_model_is() -> None:
    """A model whose longest values a board could not receive says so; the bound holds for what is really asked."""
    assert MODEL.advice == "boards can run it"
    row = {"type": "String", "access": "ReadWrite", "maxLength": 128}
    wide = {"properties": [{"name": f"x{i}", "index": 240 + i, **row} for i in range(8)]}
    long = compile_model("wide", wide)
    assert "but the longest values of all properties are" in long.advice
    board = ready().board
    board.spec = {"properties": {f"x{i}": "x" * 128 for i in range(8)}, "settings": {"heartbeatSeconds": 86400}}
    state, _, errors = build_state(board, long)
    assert not errors
    assert len(state) + 40 <= long.most_desired_bytes <= len(state) + 80
    agent = (ROOT / "firmware/boardlet/agent.py").read_text()
    assert f"_LIMIT = const({AGENT_RECEIVES_BYTES})" in agent


def _reports(last_bytes: int) -> Model:
    """A model whose longest full report is 8,192 bytes if its last property's values have 16."""
    items = {"type": "Bytes", "maxLength": 128}
    row = {"type": "Array", "access": "ReadOnly", "maxItems": 31, "items": items}
    rows = [{"name": f"log{i}", "index": 24 + i, **row} for i in range(2)]
    last = {"name": "last", "index": 0, "type": "Bytes", "access": "ReadWrite", "maxLength": last_bytes}
    return compile_model("logs", {"properties": [*rows, last]})


def test_the_longest_report_of_a_model_is_read() -> None:
    """Whatever a board of an accepted model reports is shown: all at its longest, and an error of each property."""
    made = _reports(16)
    world = World()
    world.send(ModelSeen(made))
    world.edit(led=None)
    world.connect_broker()
    world.side.apply(world.retained["d"])
    world.send(world.side.here())
    values = {24: [bytes(128)] * 31, 25: [bytes(128)] * 31, 0: bytes(16)}
    most, applied = 2**32 - 1, world.side.applied or []
    # As Twin._full composes it.
    said = {-4: most, -5: world.nonce(), -6: [2**31 - 1, bytes(8), 6], -7: dict.fromkeys(range(4), most), -8: 2}
    longest = {-1: 2**30, -2: [applied[0], 2**31 - 1, applied[2], most], -3: dict.fromkeys(values, 6), **said, **values}
    assert len(cbor.dumps(longest)) == made.most_reported_bytes == MAX_PAYLOAD_BYTES
    world.send(world.side.report({**longest, -2: applied}))
    assert world.condition("Connected") == ("True", "Answered")
    assert len(world.status["reported"]["log1"]) == 31


def test_a_model_whose_reports_could_not_be_read_is_refused() -> None:
    """One byte more and the model is not accepted, with its size, the limit, what is longest and what to do."""
    with pytest.raises(ModelError) as refused:
        _reports(17)
    assert str(refused.value) == (
        "a board's report of the longest values of all properties is 8193 bytes, the bridge reads at most 8192: lower "
        "maxItems or maxLength of the longest (log0 4034, log1 4034, last 19), or use fewer properties"
    )
    scalar = [{"name": f"x{i}", "index": i, "type": "String", "access": "ReadOnly"} for i in range(64)]
    assert compile_model("m", {"properties": scalar}).most_reported_bytes < MAX_PAYLOAD_BYTES, "64 of maxLength 64"


def test_pwm_has_its_range_as_scale() -> None:
    """PwmOut is given what turns its value into a duty cycle: raw × scale + offset, as Adc is."""
    fan = with_driver("Integer", "PwmOut", "ReadWrite", minimum=20, maximum=100)
    row = cbor2.loads(_compiled(fan).encoded)[1][0]
    assert row[10][5] == 20
    assert abs(row[10][4] - 80 / 65535) < 1e-9


def _compiled(fields: dict[str, Any]) -> Model:
    return compile_model("m", {"properties": [{"name": "x", "index": 0, **fields}]})


def test_words_and_units_do_not_roll() -> None:
    """What is for people only changes no byte that boards fetch."""
    spec = copy.deepcopy(THERMOSTAT)
    for prop in spec["properties"]:
        prop |= {"description": "other", "unit": "K"}
    assert compile_model("thermostat", spec).digest == MODEL.digest


def test_what_a_board_reports_out_of_its_words() -> None:
    """A position that the Enum does not have is an error of that property, and the others are shown."""
    world = ready()
    world.send(world.side.report({0: "no boolean", 1: 22.5}))
    assert world.status["reported"]["target"] == 22.5
    assert "led" not in world.status["reported"]
    assert [(e["property"], e["reason"]) for e in world.status["errors"]] == [("led", "WrongType")]
    with pytest.raises(ValueRefused, match="must be a position below 3, is 3"):
        MODEL.by_name["mode"].from_wire(3)
