"""What a user asks for, in Kubernetes' form, to the wire's form; or why it is none of the property's values.

The board checks the same once more (firmware/boardlet/model.py), and the API server what it can see
(crds/boards.yaml, crds/boardmodels.yaml): all with the same words, which tests/firmware/test_words.py compares.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Final

from boardlet_bridge.core.codec import shortest
from boardlet_bridge.core.value import (
    Value,
    ValueRefused,
    ValueType,
    integer_32,
    refuse,
    single_number,
    whole,
    written,
)


def to_wire(kind: ValueType, value: object, path: str = "") -> Value:
    """The wire's form of a Kubernetes value; `path` names it in messages where it is a part of another.

    Raises ValueRefused: WrongType, OutOfRange or TooLong.
    """
    return _TO_WIRE[kind.kind](kind, value, path)


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
        checked = integer_32(int(value), path)
    else:
        checked = single_number(value, path)
    if kind.minimum is not None and checked < kind.minimum:
        raise refuse("OutOfRange", path, f"must be at least {_plain(kind.minimum)}, is {_plain(checked)}")
    if kind.maximum is not None and checked > kind.maximum:
        raise refuse("OutOfRange", path, f"must be at most {_plain(kind.maximum)}, is {_plain(checked)}")
    return checked


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
    return [to_wire(field, value[name], f"{path}.{name}") for name, field in kind.fields]


def _array(kind: ValueType, value: object, path: str) -> Value:
    if not isinstance(value, list) or kind.items is None:
        raise _wrong(kind, value, path)
    if len(value) > kind.max_items:
        raise refuse("TooLong", path, f"must be at most {kind.max_items} items, is {len(value)}")
    return [to_wire(kind.items, item, f"{path}[{i}]") for i, item in enumerate(value)]


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
