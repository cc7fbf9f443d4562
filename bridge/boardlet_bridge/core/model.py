"""BoardModel: a user's list of properties, checked and compiled to the bytes that boards fetch.

Only what changes a board's behaviour is compiled in, so that a new description or unit does not roll to the fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from boardlet_wire.names import ModelKey, PropertyKey
from boardlet_wire.seal import digest

from boardlet_bridge.core.asked import to_wire
from boardlet_bridge.core.codec import MAX_PAYLOAD_BYTES, encode, single
from boardlet_bridge.core.driver import check_pins, compile_driver
from boardlet_bridge.core.metric import Metric, compile_metric
from boardlet_bridge.core.schema import compile_type
from boardlet_bridge.core.value import (
    NUMERIC,
    SCALARS,
    ModelError,
    Value,
    ValueRefused,
    ValueType,
    head_bytes,
    whole,
)

MODEL_VERSION: Final = 1
MAX_MODEL_BYTES: Final = 4096  # what a board keeps in RAM while it fetches (PROTOCOL.md section 9)
MAX_INDEX: Final = 254
AGENT_RECEIVES_BYTES: Final = 1024  # the longest message, see firmware/boardlet/agent.py
# A desired beside its values: keys, uid, revision, generation, digest, settings with three numbers, tag.
DESIRED_BYTES: Final = 80
# A full report beside its values and errors: sequence, applied, uptime, nonce, refused, counters, health, with keys.
REPORT_BYTES: Final = 6 + 28 + 6 + 10 + 17 + 26 + 2
REPORT_KEYS: Final = 8
MAX_NAMED: Final = 3  # of the longest properties
ACCESSES: Final = ("ReadOnly", "ReadWrite")


@dataclass(frozen=True, slots=True)
class Property:
    """One property of a model; its default in the wire's form."""

    name: str
    index: int
    type: ValueType
    writable: bool
    default: Value | None = None
    driven: bool = False
    """Whether a driver makes it real; else it belongs to the board's app."""

    def to_wire(self, value: object) -> Value:
        """The value as the wire carries it; raises ValueRefused (WrongType, OutOfRange, TooLong)."""
        return to_wire(self.type, value, self._path)

    def from_wire(self, value: object) -> Value:
        """The value as Kubernetes shows it; raises ValueRefused."""
        return self.type.from_wire(value, self._path)

    @property
    def most_bytes(self) -> int:
        """The length of its longest value with its index, in a report or a desired."""
        return head_bytes(self.index) + self.type.most_bytes()

    @property
    def _path(self) -> str:
        # A scalar's message needs no name: it stands beside it in status.errors.
        return "" if self.type.kind in SCALARS else self.name


@dataclass(frozen=True, slots=True)
class Model:
    """A compiled model: what boards fetch (`encoded`), its 8-byte digest, and its properties both ways."""

    name: str
    by_name: Mapping[str, Property]
    by_index: Mapping[int, Property]
    encoded: bytes
    digest: bytes
    # Two models that differ in nothing else are one to their boards: these are not asked anew.
    metrics: tuple[Metric, ...] = field(default=(), compare=False)

    @property
    def advice(self) -> str:
        """What its author should know although boards can run it: the worst case of what a Board may ask for."""
        if self.most_desired_bytes <= AGENT_RECEIVES_BYTES:
            return "boards can run it"
        return (
            f"boards can run it, but the longest values of all properties are {self.most_desired_bytes} bytes, and "
            f"they receive {AGENT_RECEIVES_BYTES}: a Board that asks for them will say TooLarge"
        )

    @property
    def most_desired_bytes(self) -> int:
        """The length of the longest desired message that a Board of this model can ask for."""
        writable = (p for p in self.by_index.values() if p.writable)
        return DESIRED_BYTES + sum(p.most_bytes for p in writable)

    @property
    def most_reported_bytes(self) -> int:
        """The length of the longest body of a full report: all values at their longest, and an error of each."""
        count = len(self.by_index)
        errors = 1 + head_bytes(count) + sum(head_bytes(index) + 1 for index in self.by_index)
        values = sum(p.most_bytes for p in self.by_index.values())
        return head_bytes(count + REPORT_KEYS) + REPORT_BYTES + errors + values


def compile_model(name: str, spec: Mapping[str, Any]) -> Model:
    """Compile a BoardModel's spec; raises ModelError for what no board could run."""
    by_name: dict[str, Property] = {}
    by_index: dict[int, Property] = {}
    rows: list[dict[int, object]] = []
    metrics: list[Metric] = []
    for raw in spec.get("properties") or ():
        try:
            prop = _property(raw)
            row = _row(prop, raw)
            metric = compile_metric(f"property {prop.name!r}", raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"property {raw.get('name')!r}: {error!r}") from error
        if prop.name in by_name or prop.index in by_index:
            raise ModelError(f"property {prop.name!r}: its name or index {prop.index} is taken by another")
        by_name[prop.name] = by_index[prop.index] = prop
        rows.append(row)
        if metric:
            metrics.append(metric)
    check_pins(spec.get("properties") or ())
    rows.sort(key=lambda row: row[PropertyKey.INDEX])  # type: ignore[arg-type,return-value]
    encoded = encode({ModelKey.VERSION: MODEL_VERSION, ModelKey.PROPERTIES: rows})
    if len(encoded) > MAX_MODEL_BYTES:
        size = f"compiled it is {len(encoded)} bytes, boards take at most {MAX_MODEL_BYTES}"
        raise ModelError(f"{size}: use fewer properties")
    model = Model(name, by_name, by_index, encoded, digest(encoded), tuple(metrics))
    _check_report(model)
    return model


def _check_report(model: Model) -> None:
    # Refused, not only advised against: what is too long to be read is not read in part, so that from the day on which
    # its values grow a board that works could not be told from one that is gone.
    size = model.most_reported_bytes
    if size > MAX_PAYLOAD_BYTES:
        longest = sorted(model.by_index.values(), key=lambda p: -p.most_bytes)[:MAX_NAMED]
        named = ", ".join(f"{p.name} {p.most_bytes}" for p in longest)
        raise ModelError(
            f"a board's report of the longest values of all properties is {size} bytes, the bridge reads at most "
            f"{MAX_PAYLOAD_BYTES}: lower maxItems or maxLength of the longest ({named}), or use fewer properties"
        )


def _property(raw: Mapping[str, Any]) -> Property:
    name, index, access = str(raw["name"]), int(raw["index"]), str(raw["access"])
    where = f"property {name!r}"
    if access not in ACCESSES or not 0 <= index <= MAX_INDEX:
        raise ModelError(f"{where}: unknown access, or an index not in 0..{MAX_INDEX}")
    prop = Property(name, index, compile_type(where, raw), access == "ReadWrite", driven=bool(raw.get("driver")))
    if raw.get("default") is None:
        return prop
    if not prop.writable:
        raise ModelError(f"{where}: its default must not be set, the property is ReadOnly (ReadOnly)")
    try:
        return replace(prop, default=prop.to_wire(raw["default"]))
    except ValueRefused as error:
        raise ModelError(f"{where}: its default {error} ({error.reason})") from error


def _row(prop: Property, raw: Mapping[str, Any]) -> dict[int, object]:
    where = f"property {prop.name!r}"
    report = raw.get("report") or {}
    deadband = whole(single(report.get("deadband") or 0))
    interval_s = int(report.get("minIntervalSeconds") or 0)
    if deadband and prop.type.kind not in NUMERIC:
        raise ModelError(f"{where}: deadband must be set for Integer and Number only")
    row = {PropertyKey.INDEX: prop.index, PropertyKey.NAME: prop.name, **prop.type.row()}
    if prop.writable:
        row[PropertyKey.ACCESS] = 1
    if prop.default is not None:
        row[PropertyKey.DEFAULT] = prop.default
    if deadband:
        row[PropertyKey.DEADBAND] = deadband
    if interval_s:
        row[PropertyKey.MIN_INTERVAL_S] = interval_s
    if raw.get("driver"):
        row[PropertyKey.DRIVER] = compile_driver(where, prop.type, str(raw["access"]), raw["driver"])
    return row
