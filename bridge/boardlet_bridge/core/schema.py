"""Types as a BoardModel describes them, to ValueTypes; each mistake is a ModelError that says what must be.

The same rules stand in crds/boardmodels.yaml; here they hold for models that no API server has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from boardlet_bridge.core.codec import single
from boardlet_bridge.core.value import (
    DEFAULT_MAX_LENGTH,
    INT_MAX,
    INT_MIN,
    NUMERIC,
    SCALARS,
    TYPES,
    ModelError,
    ValueType,
)

MAX_LENGTH: Final = 128
MAX_ITEMS: Final = 32
MAX_FIELDS: Final = 8
MAX_WORDS: Final = 32
# Which keys of a type's description belong to which types.
LIMITS: Final[Mapping[str, tuple[str, ...]]] = {
    "minimum": NUMERIC,
    "maximum": NUMERIC,
    "maxLength": ("String", "Bytes"),
    "values": ("Enum",),
    "fields": ("Record",),
    "items": ("Array",),
    "maxItems": ("Array",),
}


def compile_type(where: str, raw: Mapping[str, Any], allowed: tuple[str, ...] = TYPES) -> ValueType:
    """The type of a property, an Array's items or a Record's field; `where` begins the message of a ModelError."""
    kind = str(raw["type"])
    if kind not in allowed:
        raise ModelError(f"{where}: type must be one of {', '.join(allowed)}, is {kind!r}")
    for key, kinds in LIMITS.items():
        if key in raw and kind not in kinds:
            raise ModelError(f"{where}: {key} must be set for {' and '.join(kinds)} only")
    words = _words(where, raw) if kind == "Enum" else ()
    items = compile_type(f"{where}, its items", raw["items"], SCALARS) if kind == "Array" else None
    fields = tuple(_field(where, field) for field in raw.get("fields", ()))
    if kind == "Record" and not 0 < len({name for name, _ in fields}) == len(fields) <= MAX_FIELDS:
        raise ModelError(f"{where}: fields must be 1 to {MAX_FIELDS}, each with a name of its own")
    made = ValueType(
        kind,
        _bound(where, kind, raw.get("minimum")),
        _bound(where, kind, raw.get("maximum")),
        _size(where, "maxLength", raw.get("maxLength", DEFAULT_MAX_LENGTH), MAX_LENGTH),
        words,
        fields,
        items,
        _size(where, "maxItems", raw["maxItems"], MAX_ITEMS) if kind == "Array" else 0,
    )
    if made.minimum is not None and made.maximum is not None and made.minimum > made.maximum:
        raise ModelError(f"{where}: maximum must be at least minimum")
    return made


def _field(where: str, raw: Mapping[str, Any]) -> tuple[str, ValueType]:
    name = str(raw["name"])
    return name, compile_type(f"{where}, field {name!r}", raw, SCALARS)


def _words(where: str, raw: Mapping[str, Any]) -> tuple[str, ...]:
    words = tuple(map(str, raw["values"]))
    if not 0 < len(set(words)) == len(words) <= MAX_WORDS:
        raise ModelError(f"{where}: values must be 1 to {MAX_WORDS} different words")
    return words


def _bound(where: str, kind: str, raw: Any) -> float | None:
    # In the precision that boards compare with, so that both sides refuse the same values.
    if raw is None:
        return None
    if kind != "Integer":
        try:
            return single(raw)
        except ValueError as error:
            raise ModelError(f"{where}: minimum and maximum must be single-precision numbers") from error
    if raw != int(raw) or not INT_MIN <= raw <= INT_MAX:
        raise ModelError(f"{where}: minimum and maximum must be whole numbers of 32 bits for Integer")
    return int(raw)


def _size(where: str, key: str, raw: Any, most: int) -> int:
    if not 1 <= int(raw) <= most:
        raise ModelError(f"{where}: {key} must be from 1 to {most}")
    return int(raw)
