"""BoardModel: a user's list of properties, checked and compiled to the bytes that boards fetch.

Only what changes a board's behaviour is compiled in, so that a new description or unit does not roll to the fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from boardlet_wire.names import DriverKey, ModelKey, PropertyKey
from boardlet_wire.seal import digest

from boardlet_bridge.core.codec import Scalar, encode, printable, shortest, single
from boardlet_bridge.core.condition import Fault

MODEL_VERSION: Final = 1
MAX_MODEL_BYTES: Final = 4096  # what a board keeps in RAM while it fetches (PROTOCOL.md section 9)
MAX_INDEX: Final = 254
DEFAULT_MAX_LENGTH: Final = 64
TYPES: Final = ("Boolean", "Integer", "Number", "String")
ACCESSES: Final = ("ReadOnly", "ReadWrite")
PULLS: Final = ("None", "Up", "Down")
DRIVERS: Final[Mapping[str, str]] = {"GpioOut": "gpio_out", "GpioIn": "gpio_in", "Adc": "adc"}


class ModelError(ValueError):
    """The model cannot be compiled; the message says which property and why."""


class ValueRefused(ValueError):
    """A value is not allowed for its property; `reason` is a CamelCase word of PROTOCOL.md section 7."""

    def __init__(self, reason: Fault, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Property:
    """One property of a model; minimum and maximum in the property's own unit."""

    name: str
    index: int
    type: str
    writable: bool
    minimum: float | None = None
    maximum: float | None = None
    max_length: int = DEFAULT_MAX_LENGTH
    default: Scalar | None = None

    def to_wire(self, value: object) -> Scalar:
        """The value as the wire carries it; raises ValueRefused (WrongType, OutOfRange, TooLong)."""
        checked = self._typed(value)
        if isinstance(checked, str):
            size = len(checked.encode())
            if size > self.max_length:
                raise ValueRefused("TooLong", f"must be at most {self.max_length} bytes, is {size}")
        elif not isinstance(checked, bool):
            if self.minimum is not None and checked < self.minimum:
                raise ValueRefused("OutOfRange", f"must be at least {self.minimum:g}, is {shown(checked)}")
            if self.maximum is not None and checked > self.maximum:
                raise ValueRefused("OutOfRange", f"must be at most {self.maximum:g}, is {shown(checked)}")
        return checked

    def _typed(self, value: object) -> Scalar:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.type == "Boolean" and isinstance(value, bool):
            return value
        if self.type == "String" and isinstance(value, str):
            return value
        if self.type == "Integer" and number and value == int(value):  # type: ignore[call-overload]
            whole = int(value)  # type: ignore[call-overload]
            if not -(2**31) <= whole < 2**31:
                raise ValueRefused("OutOfRange", f"must fit 32 bits, is {whole}")
            return int(whole)
        if self.type == "Number" and number:
            try:
                return single(float(value))  # type: ignore[arg-type]
            except (ValueError, OverflowError) as error:
                raise ValueRefused("OutOfRange", f"must be a single-precision number: {error}") from error
        raise ValueRefused("WrongType", f"must be of type {self.type}, is {value!r:.40}")


def shown(value: Scalar) -> Scalar:
    """A wire value as people read it: the shortest decimal of a number, text without what could move a cursor."""
    if isinstance(value, str):
        return printable(value)
    return shortest(value) if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class Model:
    """A compiled model: what boards fetch (`encoded`), its 8-byte digest, and its properties both ways."""

    name: str
    by_name: Mapping[str, Property]
    by_index: Mapping[int, Property]
    encoded: bytes
    digest: bytes


def compile_model(name: str, spec: Mapping[str, Any]) -> Model:
    """Compile a BoardModel's spec; raises ModelError for what no board could run."""
    by_name: dict[str, Property] = {}
    by_index: dict[int, Property] = {}
    rows: list[dict[int, object]] = []
    for raw in spec.get("properties") or ():
        prop = _property(raw)
        if prop.name in by_name or prop.index in by_index:
            raise ModelError(f"property {prop.name!r}: its name or index {prop.index} is taken by another")
        by_name[prop.name] = by_index[prop.index] = prop
        rows.append(_row(prop, raw))
    rows.sort(key=lambda row: row[PropertyKey.INDEX])  # type: ignore[arg-type,return-value]
    encoded = encode({ModelKey.VERSION: MODEL_VERSION, ModelKey.PROPERTIES: rows})
    if len(encoded) > MAX_MODEL_BYTES:
        size = f"compiled it is {len(encoded)} bytes, boards take at most {MAX_MODEL_BYTES}"
        raise ModelError(f"{size}: use fewer properties")
    return Model(name, by_name, by_index, encoded, digest(encoded))


def _property(raw: Mapping[str, Any]) -> Property:
    try:
        prop = Property(
            name=str(raw["name"]),
            index=int(raw["index"]),
            type=str(raw["type"]),
            writable=raw["access"] == "ReadWrite",
            minimum=raw.get("minimum"),
            maximum=raw.get("maximum"),
            max_length=int(raw.get("maxLength") or DEFAULT_MAX_LENGTH),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"property {raw.get('name')!r}: {error!r}") from error
    if prop.type not in TYPES or raw["access"] not in ACCESSES or not 0 <= prop.index <= MAX_INDEX:
        raise ModelError(f"property {prop.name!r}: unknown type or access, or an index not in 0..{MAX_INDEX}")
    if raw.get("default") is None:
        return prop
    if not prop.writable:
        raise ModelError(f"property {prop.name!r}: it is ReadOnly, so it must not have a default")
    try:
        default = prop.to_wire(raw["default"])
    except ValueRefused as error:
        raise ModelError(f"property {prop.name!r}: its default {error}") from error
    return Property(
        prop.name, prop.index, prop.type, prop.writable, prop.minimum, prop.maximum, prop.max_length, default
    )


def _row(prop: Property, raw: Mapping[str, Any]) -> dict[int, object]:
    report = raw.get("report") or {}
    row: dict[int, object] = {
        PropertyKey.INDEX: prop.index,
        PropertyKey.NAME: prop.name,
        PropertyKey.TYPE: TYPES.index(prop.type),
    }
    optional: dict[int, tuple[object, object]] = {
        PropertyKey.ACCESS: (int(prop.writable), 0),
        PropertyKey.MINIMUM: (prop.minimum, None),
        PropertyKey.MAXIMUM: (prop.maximum, None),
        PropertyKey.MAX_LENGTH: (prop.max_length, DEFAULT_MAX_LENGTH),
        PropertyKey.DEFAULT: (prop.default, None),
        PropertyKey.DEADBAND: (report.get("deadband") or 0, 0),
        PropertyKey.MIN_INTERVAL_S: (report.get("minIntervalSeconds") or 0, 0),
        PropertyKey.DRIVER: (_driver(prop, raw.get("driver")), None),
    }
    row.update({key: _narrow(value) for key, (value, absent) in optional.items() if value != absent or value is False})
    return row


def _driver(prop: Property, raw: Mapping[str, Any] | None) -> dict[int, object] | None:
    if raw is None:
        return None
    kind = DRIVERS.get(str(raw.get("type")))
    if kind is None:
        raise ModelError(f"property {prop.name!r}: unknown driver {raw.get('type')!r}, there are {', '.join(DRIVERS)}")
    optional: dict[int, tuple[object, object]] = {
        DriverKey.INVERTED: (bool(raw.get("inverted")), False),
        DriverKey.PULL: (PULLS.index(raw.get("pull") or "None"), 0),
        DriverKey.SCALE: (raw.get("scale", 1), 1),
        DriverKey.OFFSET: (raw.get("offset", 0), 0),
        DriverKey.SAMPLE_MS: (raw.get("sampleMilliseconds", 200), 200),
    }
    driver: dict[int, object] = {DriverKey.KIND: kind, DriverKey.PINS: list(raw.get("pins") or ())}
    driver.update({key: _narrow(value) for key, (value, absent) in optional.items() if value != absent})
    return driver


def _narrow(value: object) -> object:
    # Boards read floats of single precision; a float that YAML wrote for a whole number stays a float.
    return single(value) if isinstance(value, float) else value
