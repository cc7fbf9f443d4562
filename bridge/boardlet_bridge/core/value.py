"""Values: what a type allows, in Kubernetes' form and on the wire, and the words for what it does not.

A property, an Array's items and a Record's field are each one `ValueType`. Kubernetes writes an Enum as its word, Bytes
as base64 and a Record as a map; the wire has a position, a byte string and an array (PROTOCOL.md section 3).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from boardlet_wire.names import PropertyKey

from boardlet_bridge.core.codec import printable, shortest, single
from boardlet_bridge.core.condition import Fault

TYPES: Final = ("Boolean", "Integer", "Number", "String", "Enum", "Bytes", "Record", "Array")
SCALARS: Final = TYPES[:6]
NUMERIC: Final = ("Integer", "Number")
DEFAULT_MAX_LENGTH: Final = 64
MAX_LENGTH: Final = 128
MAX_ITEMS: Final = 32
MAX_FIELDS: Final = 8
MAX_WORDS: Final = 32
HEAD_BYTES: Final = 2  # of a string or an array, in CBOR
NUMBER_BYTES: Final = 5
INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1

Value = bool | int | float | str | bytes | list[Any] | dict[str, Any]
"""A value in either form; bytes on the wire only, maps in Kubernetes only."""


class ModelError(ValueError):
    """The model cannot be compiled; the message says which property and why."""


class ValueRefused(ValueError):
    """A value is not allowed for its property; `reason` is a CamelCase word of PROTOCOL.md section 7."""

    def __init__(self, reason: Fault, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ValueType:
    """One type with its limits; of those that do not belong to `kind` the defaults stand."""

    kind: str
    minimum: float | None = None
    maximum: float | None = None
    max_length: int = DEFAULT_MAX_LENGTH
    words: tuple[str, ...] = ()
    fields: tuple[tuple[str, ValueType], ...] = ()
    items: ValueType | None = None
    max_items: int = MAX_ITEMS

    def to_wire(self, value: object, path: str = "") -> Value:
        """The wire's form of a Kubernetes value; `path` names it in messages where it is a part of another.

        Raises ValueRefused: WrongType, OutOfRange or TooLong.
        """
        return _TO_WIRE[self.kind](self, value, path)

    def from_wire(self, value: object, path: str = "") -> Value:
        """Kubernetes' form of what a board reports; raises ValueRefused (WrongType, or OutOfRange for an Enum).

        A range is for what is asked: what a sensor reads outside it is the truth and is shown.
        """
        kind = self.kind
        if kind == "Number" and isinstance(value, int | float) and not isinstance(value, bool):
            return shortest(_single(value, path))
        if kind == "Boolean" and isinstance(value, bool):
            return value
        if kind == "String" and isinstance(value, str):
            return printable(value)
        if kind == "Integer" and type(value) is int:
            return _integer(value, path)
        if kind == "Enum" and type(value) is int:
            if 0 <= value < len(self.words):
                return self.words[value]
            raise refuse("OutOfRange", path, f"must be a position below {len(self.words)}, is {value}")
        if kind == "Bytes" and isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if self.items and isinstance(value, list):
            return [self.items.from_wire(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if self.fields and isinstance(value, list) and len(value) == len(self.fields):
            pairs = zip(self.fields, value, strict=True)
            return {name: field.from_wire(item, f"{path}.{name}") for (name, field), item in pairs}
        raise refuse("WrongType", path, f"must be of type {kind}, the board reports {value!r:.40}")

    def most_bytes(self) -> int:
        """The length of the longest encoding of a value that `to_wire` allows."""
        if self.items:
            return HEAD_BYTES + self.max_items * self.items.most_bytes()
        if self.kind in ("String", "Bytes"):
            return HEAD_BYTES + self.max_length
        return HEAD_BYTES + sum(field.most_bytes() for _, field in self.fields) if self.fields else NUMBER_BYTES

    def row(self) -> dict[int, object]:
        """The keys of PROTOCOL.md section 9 that a board checks by."""
        row: dict[int, object] = {PropertyKey.TYPE: TYPES.index(self.kind)}
        if self.minimum is not None:
            row[PropertyKey.MINIMUM] = whole(self.minimum)
        if self.maximum is not None:
            row[PropertyKey.MAXIMUM] = whole(self.maximum)
        if self.kind == "Enum":
            row |= {PropertyKey.MINIMUM: 0, PropertyKey.MAXIMUM: len(self.words) - 1}
        limit = self.max_items if self.kind == "Array" else self.max_length
        if limit != DEFAULT_MAX_LENGTH:
            row[PropertyKey.MAX_LENGTH] = limit
        if self.items:
            row[PropertyKey.OF] = self.items.row()
        if self.fields:
            row[PropertyKey.OF] = [field.row() for _, field in self.fields]
        return row


def refuse(reason: Fault, path: str, message: str) -> ValueRefused:
    """The refusal, with the part of a Record or Array that it is about."""
    return ValueRefused(reason, f"{path}: {message}" if path else message)


def whole(x: float) -> float:
    """A number as an integer where that is the same and fits 32 bits: three bytes less on the wire."""
    return int(x) if x == x // 1 and INT_MIN <= x <= INT_MAX else x


def written(value: object) -> str:
    """A value as messages show it: JSON, at most 40 characters."""
    return json.dumps(value, ensure_ascii=False, default=repr)[:40]


def _wrong(kind: ValueType, value: object, path: str) -> ValueRefused:
    return refuse("WrongType", path, f"must be of type {kind.kind}, is {written(value)}")


def _boolean(kind: ValueType, value: object, path: str) -> Value:
    if not isinstance(value, bool):
        raise _wrong(kind, value, path)
    return value


def _number(kind: ValueType, value: object, path: str) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(kind, value, path)
    checked: int | float
    if kind.kind == "Integer":
        if not math.isfinite(value) or value != int(value):
            raise _wrong(kind, value, path)
        checked = _integer(int(value), path)
    else:
        checked = _single(value, path)
    if kind.minimum is not None and checked < kind.minimum:
        raise refuse("OutOfRange", path, f"must be at least {_plain(kind.minimum)}, is {_plain(checked)}")
    if kind.maximum is not None and checked > kind.maximum:
        raise refuse("OutOfRange", path, f"must be at most {_plain(kind.maximum)}, is {_plain(checked)}")
    return checked


def _integer(value: int, path: str) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise refuse("OutOfRange", path, f"must fit 32 bits, is {value}")
    return value


def _single(value: float, path: str) -> float:
    try:
        return single(float(value))
    except (ValueError, OverflowError) as error:
        raise refuse("OutOfRange", path, "must be a single-precision number") from error


def _plain(x: float) -> float:
    return whole(shortest(x) if isinstance(x, float) else x)


def _string(kind: ValueType, value: object, path: str) -> Value:
    if not isinstance(value, str):
        raise _wrong(kind, value, path)
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair
        raise refuse("WrongType", path, "must be Unicode text") from error
    if size > kind.max_length:
        raise refuse("TooLong", path, f"must be at most {kind.max_length} bytes, is {size}")
    return value


def _enum(kind: ValueType, value: object, path: str) -> Value:
    if not isinstance(value, str):
        raise _wrong(kind, value, path)
    if value not in kind.words:
        raise refuse("OutOfRange", path, f"must be one of {', '.join(kind.words)}, is {written(value)}")
    return kind.words.index(value)


def _bytes(kind: ValueType, value: object, path: str) -> Value:
    if not isinstance(value, str):
        raise _wrong(kind, value, path)
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse("WrongType", path, f"must be base64, is {written(value)}") from error
    if len(raw) > kind.max_length:
        raise refuse("TooLong", path, f"must be at most {kind.max_length} bytes, is {len(raw)}")
    return raw


def _record(kind: ValueType, value: object, path: str) -> Value:
    if not isinstance(value, Mapping):
        raise _wrong(kind, value, path)
    names = [name for name, _ in kind.fields]
    if set(value) != set(names):
        has = ", ".join(sorted(map(str, value))) or "none"
        raise refuse("WrongType", path, f"must have the fields {', '.join(names)} and no other, has {has:.80}")
    return [field.to_wire(value[name], f"{path}.{name}") for name, field in kind.fields]


def _array(kind: ValueType, value: object, path: str) -> Value:
    if not isinstance(value, list) or kind.items is None:
        raise _wrong(kind, value, path)
    if len(value) > kind.max_items:
        raise refuse("TooLong", path, f"must be at most {kind.max_items} items, is {len(value)}")
    return [kind.items.to_wire(item, f"{path}[{i}]") for i, item in enumerate(value)]


_TO_WIRE: Final[Mapping[str, Callable[[ValueType, object, str], Value]]] = {
    "Boolean": _boolean,
    "Integer": _number,
    "Number": _number,
    "String": _string,
    "Enum": _enum,
    "Bytes": _bytes,
    "Record": _record,
    "Array": _array,
}
