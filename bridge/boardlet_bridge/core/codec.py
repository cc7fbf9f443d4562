"""Bytes of the wire to typed fields and back, with every claim of the peer checked.

cbor2 decodes; a `Fields` reads one typed field at a time, so that a wrong type, a wrong length or a missing key becomes
one `MalformedError` with the key's name in it, which the core contains and tells on the Board.
"""

from __future__ import annotations

import math
import struct
from io import BytesIO
from typing import Any, Final

import cbor2
from boardlet_wire.names import REVISION_MAX

# The longest body that is read, eight times what an agent of ours receives; no model allows a longer report (model.py).
MAX_PAYLOAD_BYTES: Final = 8192
MAX_DEPTH: Final = 5
DIGEST_BYTES: Final = 8
UID_BYTES: Final = 6
EPOCH_BYTES: Final = 8

INTEGER_MIN: Final = -(2**31)
INTEGER_MAX: Final = 2**32 - 1
_SCALARS: Final = frozenset({float, str, bytes, bool, type(None)})

Scalar = bool | int | float | str


class MalformedError(ValueError):
    """A peer's bytes are not what PROTOCOL.md allows; the message says where."""


def encode(fields: dict[int, object]) -> bytes:
    """Encode one body canonically (RFC 8949 section 4.2): same fields, same bytes."""
    return cbor2.dumps(fields, canonical=True)


def single(x: float) -> float:
    """The nearest single-precision number; raises ValueError where there is none (PROTOCOL.md section 3)."""
    try:
        y: float = struct.unpack(">f", struct.pack(">f", x))[0]
    except OverflowError as error:
        raise ValueError("does not fit single precision") from error
    if not math.isfinite(y):
        raise ValueError("is not finite")
    return y


def shortest(x: float) -> float:
    """The decimal with the fewest digits that rounds to the same single-precision number (20.8, not 20.799999)."""
    for digits in range(6, 10):
        y = float(f"{x:.{digits}g}")
        if single(y) == single(x):
            return y
    return x


def printable(text: str) -> str:
    """The text with a space for whatever could move a terminal's cursor or hide what follows; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _plain(value: Any, depth: int = 0) -> None:
    # cbor2 knows tags too (dates, patterns, integers of any length, cycles); PROTOCOL.md section 3 does not.
    kind = type(value)
    if kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise MalformedError("an integer is out of range")
    elif kind is list or kind is dict:
        if depth >= MAX_DEPTH:
            raise MalformedError("nested too deep")
        for item in value.values() if kind is dict else value:
            _plain(item, depth + 1)
    elif kind not in _SCALARS:
        raise MalformedError(f"a {kind.__name__} is no item of the protocol")


class Fields:
    """A decoded body: a map with integer keys, read field by field; every getter raises MalformedError."""

    __slots__ = ("map",)

    def __init__(self, fields: object) -> None:
        if type(fields) is not dict or not all(type(key) is int for key in fields):
            raise MalformedError("body is not a map with integer keys")
        self.map: dict[int, object] = fields

    @classmethod
    def decode(cls, body: bytes | memoryview) -> Fields:
        """Decode a body of at most MAX_PAYLOAD_BYTES; raises MalformedError."""
        if len(body) > MAX_PAYLOAD_BYTES:
            raise MalformedError(f"body of {len(body)} bytes, at most {MAX_PAYLOAD_BYTES} are read")
        stream = BytesIO(body)
        try:
            fields = cbor2.load(stream, max_depth=MAX_DEPTH, allow_indefinite=False)
        except Exception as error:  # cbor2's tag decoders raise whatever their types raise
            raise MalformedError(f"not CBOR: {error}") from error
        if stream.read(1):
            raise MalformedError("trailing bytes")
        _plain(fields)
        return cls(fields)

    def __contains__(self, key: int) -> bool:
        return key in self.map

    def integer(self, key: int, low: int = 0, high: int = 2**32 - 1) -> int:
        value = self.map.get(key)
        if type(value) is not int or not low <= value <= high:
            raise MalformedError(f"key {int(key)} is not an integer from {low} to {high}")
        return value

    def octets(self, key: int, size: int | None = None) -> bytes:
        value = self.map.get(key)
        if type(value) is not bytes or (size is not None and len(value) != size):
            raise MalformedError(f"key {int(key)} is not {'' if size is None else size} bytes")
        return value

    def text(self, key: int, most: int) -> str:
        """Printable text of at most `most` characters, longer is cut; control characters become spaces."""
        value = self.map.get(key)
        if type(value) is not str:
            raise MalformedError(f"key {int(key)} is not text")
        return printable(value[:most])

    def flag(self, key: int) -> bool:
        value = self.map.get(key)
        if type(value) is not bool:
            raise MalformedError(f"key {int(key)} is not a boolean")
        return value

    def array(self, key: int) -> list[object]:
        value = self.map.get(key)
        if type(value) is not list:
            raise MalformedError(f"key {int(key)} is not an array")
        return value

    def child(self, key: int) -> Fields:
        try:
            return Fields(self.map.get(key))
        except MalformedError as error:
            raise MalformedError(f"key {int(key)}: {error}") from error


def check_revision(value: object) -> int:
    """A revision, 0 (none yet) to REVISION_MAX; raises MalformedError."""
    if type(value) is not int or not 0 <= value <= REVISION_MAX:
        raise MalformedError("revision is out of range")
    return value


def check_octets(value: object, size: int) -> bytes:
    """Exactly `size` bytes; raises MalformedError."""
    if type(value) is not bytes or len(value) != size:
        raise MalformedError(f"not {size} bytes")
    return value
