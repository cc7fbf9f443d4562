"""Drivers: what makes a property real, checked and compiled to what a board's driver is given (PROTOCOL.md section 9).

The same rules stand in crds/boardmodels.yaml; here they hold for models that no API server has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from boardlet_wire.names import DriverKey

from boardlet_bridge.core.codec import single
from boardlet_bridge.core.value import NUMERIC, ModelError, ValueType, whole

PULLS: Final = ("None", "Up", "Down")
MEASURES: Final = ("Temperature", "Humidity")
DEFAULT_SAMPLE_MS: Final = 200
DUTY_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class Kind:
    """One driver: its module on the board, which properties it can be, and what a model may say of it."""

    module: str
    types: tuple[str, ...]
    accesses: tuple[str, ...]
    pins: int
    options: tuple[str, ...]
    sample_ms: int = DEFAULT_SAMPLE_MS
    shares: str = ""
    """Drivers with the same word may share all their pins: a bus."""


READ, WRITE = ("ReadOnly",), ("ReadWrite",)
SAMPLE: Final = "sampleMilliseconds"
DRIVERS: Final[Mapping[str, Kind]] = {
    "GpioOut": Kind("gpio_out", ("Boolean",), WRITE, 1, ("inverted",)),
    "GpioIn": Kind("gpio_in", ("Boolean",), READ, 1, ("inverted", "pull", SAMPLE)),
    "Adc": Kind("adc", NUMERIC, READ, 1, ("scale", "offset", SAMPLE)),
    "PwmOut": Kind("pwm_out", NUMERIC, WRITE, 1, ("inverted", "frequencyHertz")),
    "Ds18x20": Kind("ds18x20", NUMERIC, READ, 1, ("romCode", SAMPLE), 5000, "onewire"),
    "Sht3x": Kind("sht3x", NUMERIC, READ, 2, ("address", "measures", SAMPLE), 2000, "i2c"),
    "Bh1750": Kind("bh1750", NUMERIC, READ, 2, ("address", SAMPLE), 2000, "i2c"),
    "Uart": Kind("uart", ("String", "Bytes"), READ + WRITE, 2, ("bus", "baudRate", SAMPLE), shares="uart"),
}
# What a board assumes where the model is silent (section 9); that is not sent.
ASSUMED: Final[Mapping[int, object]] = {
    DriverKey.INVERTED: False,
    DriverKey.PULL: 0,
    DriverKey.SCALE: 1,
    DriverKey.OFFSET: 0,
    DriverKey.SAMPLE_MS: DEFAULT_SAMPLE_MS,
    DriverKey.FREQUENCY_HZ: 1000,
    DriverKey.MEASURES: 0,
    DriverKey.BAUD_RATE: 9600,
    DriverKey.BINARY: False,
    DriverKey.SENDS: False,
}


def compile_driver(where: str, kind: ValueType, access: str, raw: Mapping[str, Any]) -> dict[int, object]:
    """The driver's map of a compiled model; raises ModelError, which begins with `where`."""
    name = str(raw.get("type"))
    found = DRIVERS.get(name)
    if found is None:
        raise ModelError(f"{where}: unknown driver {name!r}, there are {', '.join(DRIVERS)}")
    _check(where, name, found, kind, access, raw)
    driver: dict[int, object] = {
        DriverKey.INVERTED: bool(raw.get("inverted")),
        DriverKey.PULL: PULLS.index(raw.get("pull") or "None"),
        DriverKey.SAMPLE_MS: raw.get(SAMPLE) or found.sample_ms,
        DriverKey.FREQUENCY_HZ: raw.get("frequencyHertz", 1000),
        DriverKey.MEASURES: MEASURES.index(raw.get("measures") or "Temperature"),
        DriverKey.BAUD_RATE: raw.get("baudRate", 9600),
        DriverKey.BINARY: kind.kind == "Bytes",
        DriverKey.SENDS: name == "Uart" and access == "ReadWrite",
        DriverKey.BUS: raw.get("bus"),
        DriverKey.ADDRESS: bytes.fromhex(raw["romCode"]) if "romCode" in raw else raw.get("address"),
        **_scaling(name, kind, raw),
    }
    kept = {key: value for key, value in driver.items() if value is not None and value != ASSUMED.get(key)}
    return {DriverKey.KIND: found.module, DriverKey.PINS: list(raw["pins"]), **kept}


def _scaling(name: str, kind: ValueType, raw: Mapping[str, Any]) -> dict[int, object]:
    scale, offset = raw.get("scale", 1), raw.get("offset", 0)
    if name == "PwmOut" and kind.minimum is not None and kind.maximum is not None:
        # The range is the duty's: minimum is always off, maximum always on.
        scale, offset = (kind.maximum - kind.minimum) / DUTY_MAX, kind.minimum
    return {DriverKey.SCALE: whole(single(scale)), DriverKey.OFFSET: whole(single(offset))}


def _check(where: str, name: str, found: Kind, kind: ValueType, access: str, raw: Mapping[str, Any]) -> None:
    pins = raw.get("pins") or ()
    if kind.kind not in found.types or access not in found.accesses:
        must = f"{' or '.join(found.types)} with access {' or '.join(found.accesses)}"
        raise ModelError(f"{where}: {name} must be {must}")
    if len(set(pins)) != found.pins or len(pins) != found.pins:
        raise ModelError(f"{where}: pins of {name} must be {found.pins}, each another")
    for option in raw:
        if option not in ("type", "pins", *found.options):
            raise ModelError(f"{where}: {option} must not be set for {name}")
    if name == "PwmOut" and (kind.minimum is None or kind.maximum is None or kind.minimum >= kind.maximum):
        raise ModelError(f"{where}: must have a minimum and a greater maximum, which are the ends of the duty cycle")
    if ("address" in found.options and "address" not in raw) or (name == "Uart" and "bus" not in raw):
        raise ModelError(f"{where}: {'bus' if name == 'Uart' else 'address'} must be set for {name}")
    if name == "Sht3x" and "measures" not in raw:
        raise ModelError(f"{where}: measures must be set for {name}")


def check_pins(properties: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a pin that two drivers claim, unless they are on one bus; raises ModelError."""
    for one, other in combinations([p for p in properties if p.get("driver")], 2):
        a, b = one["driver"], other["driver"]
        shared = set(a["pins"]) & set(b["pins"])
        same_uart = a["type"] == b["type"] == "Uart" and a["bus"] == b["bus"]
        if (shared or same_uart) and not _one_bus(one, other):
            pins = ", ".join(map(str, sorted(shared or a["pins"])))
            raise ModelError(f"property {other['name']!r}: pin {pins} is used by {one['name']!r} already")


def _one_bus(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    a, b = one["driver"], other["driver"]
    shares = DRIVERS[a["type"]].shares
    if not shares or DRIVERS[b["type"]].shares != shares or list(a["pins"]) != list(b["pins"]):
        return False
    if shares == "onewire":
        return "romCode" in a and "romCode" in b and a["romCode"] != b["romCode"]
    if shares == "uart":
        same = a["bus"] == b["bus"] and a.get("baudRate") == b.get("baudRate")
        return bool(same and one["access"] != other["access"])
    return True
