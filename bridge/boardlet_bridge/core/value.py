"""Values: what a type allows, in Kubernetes' form and on the wire, and the words for what it does not.

A property, an Array's items and a Record's field are each one `ValueType`. Kubernetes writes an Enum as its word, Bytes
as base64 and a Record as a map; the wire has a position, a byte string and an array (PROTOCOL.md section 3).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Final

from boardlet_wire.names import PropertyKey

from boardlet_bridge.core.codec import printable, shortest, single
from boardlet_bridge.core.condition import Fault

TYPES: Final = ("Boolean", "Integer", "Number", "String", "Enum", "Bytes", "Record", "Array")
SCALARS: Final = TYPES[:6]
NUMERIC: Final = ("Integer", "Number")
DEFAULT_MAX_LENGTH: Final = 64
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
    max_items: int = 0

    def from_wire(self, value: object, path: str = "") -> Value:
        """Kubernetes' form of what a board reports; raises ValueRefused (WrongType, or OutOfRange for an Enum).

        A range is for what is asked: what a sensor reads outside it is the truth and is shown.
        """
        kind = self.kind
        if kind == "Number" and isinstance(value, int | float) and not isinstance(value, bool):
            return shortest(single_number(value, path))
        if kind == "Boolean" and isinstance(value, bool):
            return value
        if kind == "String" and isinstance(value, str):
            return printable(value)
        if kind == "Integer" and type(value) is int:
            return integer_32(value, path)
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
        """The length of the longest encoding of a value of this type; a number may be out of its range."""
        if self.items:
            return head_bytes(self.max_items) + self.max_items * self.items.most_bytes()
        if self.fields:
            return head_bytes(len(self.fields)) + sum(field.most_bytes() for _, field in self.fields)
        if self.kind in ("String", "Bytes"):
            return head_bytes(self.max_length) + self.max_length
        if self.kind in NUMERIC:
            return NUMBER_BYTES
        return head_bytes(max(0, len(self.words) - 1))

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


def head_bytes(n: int) -> int:
    """The length of CBOR's head for a length, count, place or index below 256."""
    return 1 if n < 24 else 2


def refuse(reason: Fault, path: str, message: str) -> ValueRefused:
    """The refusal, with the part of a Record or Array that it is about."""
    return ValueRefused(reason, f"{path}: {message}" if path else message)


def whole(x: float) -> float:
    """A number as an integer where that is the same and fits 32 bits: three bytes less on the wire."""
    return int(x) if x == x // 1 and INT_MIN <= x <= INT_MAX else x


def written(value: object) -> str:
    """A value as messages show it: JSON, at most 40 characters."""
    return json.dumps(value, ensure_ascii=False, default=repr)[:40]


def integer_32(value: int, path: str) -> int:
    """The integer if it fits the wire; raises ValueRefused (OutOfRange)."""
    if not INT_MIN <= value <= INT_MAX:
        raise refuse("OutOfRange", path, f"must fit 32 bits, is {value}")
    return value


def single_number(value: float, path: str) -> float:
    """The number as the wire has it; raises ValueRefused (OutOfRange)."""
    try:
        return single(float(value))
    except (ValueError, OverflowError) as error:
        raise refuse("OutOfRange", path, "must be a single-precision number") from error
