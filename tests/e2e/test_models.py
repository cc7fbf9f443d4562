"""Models with real parts: values of every type to the board and back, and models that change under live boards."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from boardlet_cli.cluster import KubectlFailed
from boardlet_cli.site import Site
from greenhouse import QUICK, SAMPLES, WAIT_S, Greenhouse, create

BOARD_ID = "k7m2q9xa"
LED, FAN = 2, 5
APP = """
from boardlet import app

@app.property("mode")
def mode(place):
    app.set("serial", bytes((place, 255)))

@app.property("target")
def target(value):
    return value

@app.property("limits")
def limits(fields):
    low, high, alarm = fields
    return (low, high, alarm)

@app.property("week")
def week(hours):
    return hours
"""
MODEL: list[dict[str, Any]] = [
    {"name": "led", "index": 0, "type": "Boolean", "access": "ReadWrite", "driver": {"type": "GpioOut", "pins": [LED]}},
    {"name": "fan", "index": 1, "type": "Integer", "access": "ReadWrite", "minimum": 0, "maximum": 100,
     "driver": {"type": "PwmOut", "pins": [FAN]}},
    {"name": "light", "index": 2, "type": "Number", "access": "ReadOnly", "driver": {"type": "Adc", "pins": [34]}},
    {"name": "target", "index": 3, "type": "Number", "access": "ReadWrite", "minimum": 5, "maximum": 35},
]  # fmt: skip


def start(site: Site, model: str, **spec: Any) -> Greenhouse:
    """A Board of this model and its powered board, with the app that every test here has."""
    board = site.add_board(BOARD_ID, config=QUICK, pin_udp=spec.pop("pin_udp", None))
    (board.flash / "app.py").write_text(APP)
    made = Greenhouse(site, site.cluster, "t1", board, BOARD_ID)
    create(made, modelRef={"name": model}, **spec)
    return made


def apply(one: Greenhouse, properties: list[dict[str, Any]], **spec: Any) -> None:
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "BoardModel", "metadata": {"name": "m"}}
    one.cluster.run("apply", "-f", "-", stdin=json.dumps({**body, "spec": {"properties": properties, **spec}}))


def changed(name: str, **fields: Any) -> list[dict[str, Any]]:
    """MODEL with these fields of one property changed; None takes a field away."""
    rows = [{**row, **(fields if row["name"] == name else {})} for row in MODEL]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def errors(obj: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {e["property"]: (e["source"], e["reason"], e["message"]) for e in obj["status"].get("errors", [])}


def test_every_type_and_driver(site: Site) -> None:
    """A property of every type and driver goes to the board and comes back as it was written."""
    site.cluster.run("apply", "-f", str(SAMPLES / "thermostat.yaml"))
    one = start(site, "thermostat", properties={"mode": "Heat", "fan": 55, "display": "Grüße"})
    one.board.put("i2c22-0x44", "21.5 48")
    one.board.put("i2c22-0x23", "420")
    one.board.put("onewire4", "28ff641e0f160354 -3.5")
    one.board.start()
    status = one.synced()["status"]
    asked = {
        "mode": "Heat", "target": 20.5, "limits": {"low": 8, "high": 30, "alarm": True}, "week": [6, 6, 6, 6, 6, 8, 8],
        "serial": "Af8=", "pump": False, "fan": 55, "display": "Grüße",
    }  # fmt: skip
    assert {name: status["reported"][name] for name in asked} == asked
    assert one.board.world("uart1.tx").read_text() == "Grüße\n"
    one.board.world("uart1.rx").write_text("12345 kWh\n")
    obj = one.reported(meter="12345 kWh", floor=-3.5, light=420, serial="Af8=")
    assert abs(obj["status"]["reported"]["temperature"] - 21.5) < 0.1
    assert abs(obj["status"]["reported"]["humidity"] - 48) < 0.1
    new = {"mode": "Cool", "limits": {"low": 9.5, "high": 31, "alarm": False}, "week": [], "pump": True}
    one.edit(**new)
    status = one.synced()["status"]
    assert {name: status["reported"][name] for name in new} == new
    assert status["reported"]["serial"] == "Av8="


def test_errors_name_the_element(site: Site) -> None:
    """What is wrong inside a Record or an Array is told with its element; all other properties apply."""
    site.cluster.run("apply", "-f", str(SAMPLES / "thermostat.yaml"))
    one = start(site, "thermostat")
    for name, text in {"i2c22-0x44": "21 48", "i2c22-0x23": "420", "onewire4": "28ff641e0f160354 9"}.items():
        one.board.put(name, text)
    one.board.start()
    one.synced()
    one.edit(limits={"low": 8, "high": 40, "alarm": True}, week=[6, 24], mode="Off", pump=True, nothing=1)
    obj = one.until("Synced", "False", "PropertyErrors")
    one.reported(pump=True)
    assert errors(obj) == {
        "limits": ("Bridge", "OutOfRange", "limits.high: must be at most 35, is 40"),
        "week": ("Bridge", "OutOfRange", "week[1]: must be at most 23, is 24"),
        "mode": ("Bridge", "OutOfRange", 'must be one of Idle, Heat, Cool, is "Off"'),
        "nothing": ("Bridge", "UnknownProperty", "model thermostat has no such property"),
    }
    one.board.world("onewire4").unlink()
    obj = one.cluster.until("board", one.name, lambda o: "floor" in errors(o), WAIT_S)
    assert errors(obj)["floor"][:2] == ("Board", "DriverFailed")


@pytest.fixture
def pins() -> Iterator[socket.socket]:
    """Hears every change of an output of the board."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.setblocking(False)
        yield heard


def moved(pins: socket.socket) -> list[str]:
    """The changes of outputs since the last call, as "pin level"."""
    found = []
    while True:
        try:
            found.append(pins.recv(64).decode())
        except BlockingIOError:
            return found


@pytest.fixture
def one(site: Site, pins: socket.socket) -> Greenhouse:
    """A board of MODEL whose LED is on, whose fan runs at 80 %, and whose target is 30; Ready."""
    asked = {"led": True, "fan": 80, "target": 30}
    made = start(site, "m", properties=asked, pin_udp=pins.getsockname()[1])
    made.board.set_adc(34, 100)
    apply(made, MODEL)
    made.board.start()
    made.synced()
    assert moved(pins) == [f"{LED} 1"]
    return made


def test_a_property_comes_and_a_driver_changes(one: Greenhouse, pins: socket.socket) -> None:
    """A model grows and moves a sensor to another bus: no reboot, and no pin of an unchanged property moves."""
    before = one.object["status"]["board"]["bootCount"]
    one.board.put("i2c22-0x23", "420")
    pwm = one.board.world(f"pwm{FAN}").stat().st_mtime_ns
    lamp = {"name": "lamp", "index": 4, "type": "Boolean", "access": "ReadWrite", "default": True}
    lamp["driver"] = {"type": "GpioOut", "pins": [3]}
    bh1750 = {"type": "Bh1750", "pins": [22, 21], "address": 0x23}
    apply(one, [*changed("light", driver=bh1750), lamp])
    one.reported(light=420, lamp=True)
    status = one.synced()["status"]
    assert moved(pins) == ["3 1"]
    assert one.board.world(f"pwm{FAN}").stat().st_mtime_ns == pwm
    assert status["reported"]["fan"] == 80
    assert status["board"]["bootCount"] == before
    assert status["observedGeneration"] == 1
    one.board.kill()
    one.board.start()
    one.until("Connected", "True")
    one.synced()
    assert one.object["status"]["board"]["bootCount"] == before + 1


def test_a_range_below_what_boards_ask_for(one: Greenhouse, pins: socket.socket) -> None:
    """A narrower range flags the Board that asks for more; its board keeps what it has, and everything else applies."""
    apply(one, changed("target", maximum=25))
    obj = one.until("Synced", "False", "PropertyErrors")
    assert errors(obj) == {"target": ("Bridge", "OutOfRange", "must be at most 25, is 30")}
    assert obj["status"]["reported"]["target"] == 30
    one.edit(led=False)
    one.reported(led=False)
    assert moved(pins) == [f"{LED} 0"]
    one.edit(target=25)
    assert one.synced()["status"]["reported"]["target"] == 25


def test_a_property_goes_and_its_pin_is_free(one: Greenhouse) -> None:
    """A removed property is no longer reported, and its pin may be another's in the same change."""
    lamp = {"name": "lamp", "index": 9, "type": "Boolean", "access": "ReadWrite", "default": True}
    lamp["driver"] = {"type": "GpioOut", "pins": [FAN]}
    apply(one, [*(row for row in MODEL if row["name"] != "fan"), lamp], reservedIndexes=[1])
    obj = one.until("Synced", "False", "PropertyErrors")
    assert errors(obj) == {"fan": ("Bridge", "UnknownProperty", "model m has no such property")}
    one.cluster.run("patch", "board", one.name, "--type=json", "-p", '[{"op":"remove","path":"/spec/properties/fan"}]')
    status = one.synced()["status"]
    assert status["reported"].keys() == {"led", "light", "target", "lamp"}
    assert one.board.pin(FAN) == 1
    assert not one.board.world(f"pwm{FAN}").exists()


def test_a_model_that_no_board_could_run(one: Greenhouse, pins: socket.socket) -> None:
    """A bad model is told on itself and its Boards, with the element; the board goes on, and a good one heals all."""
    bounds = {"name": "bounds", "index": 5, "type": "Record", "access": "ReadWrite"}
    bounds["fields"] = [{"name": "max", "type": "Number", "maximum": 35}]
    apply(one, [*MODEL, {**bounds, "default": {"max": 40}}])
    refused = one.cluster.until("boardmodel", "m", lambda o: _accepted(o) == "False", WAIT_S)
    message = refused["status"]["conditions"][0]["message"]
    assert message.endswith("property 'bounds': its default bounds.max: must be at most 35, is 40 (OutOfRange)")
    one.until("Synced", "False", "ModelInvalid")
    assert one.object["status"]["reported"]["led"] is True
    assert moved(pins) == []
    apply(one, [*MODEL, bounds])
    one.synced()
    with pytest.raises(KubectlFailed, match="must keep the name and type of every index"):
        apply(one, [*changed("target", type="Integer"), bounds])


def _accepted(model: dict[str, Any]) -> str:
    return str({c["type"]: c["status"] for c in model["status"]["conditions"]}["Accepted"])
