"""The codec: the board's decoder against cbor2, on CPython and on MicroPython, and the bridge's against both.

Within PROTOCOL.md section 3's subset both give the same value; outside of it both refuse. Whether bytes are within is
decided by `inside`, which looks at heads and lengths alone and decodes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import cbor2
from boardlet_bridge.core.codec import Fields, MalformedError
from boardlet_wire import cbor

VECTORS: Final = Path(__file__).parents[2] / "firmware/boardlet_wire/vectors.json"
REFUSED: Final = "refused"


def vectors() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(VECTORS.read_text())
    return found


def bodies() -> list[bytes]:
    """All that the golden vectors have of CBOR."""
    v = vectors()
    rows = [row["hex"] for part in ("cbor", "cbor_read_only", "malformed") for row in v[part]]
    return [bytes.fromhex(text) for text in rows + [row["body"] for row in v["messages"]]]


def inside(data: bytes, strict: bool = True) -> bool:
    """Whether these bytes are one item of the protocol's subset of CBOR; `strict`: with well-formed text."""
    try:
        return _item(data, 0, 0, strict) == len(data)
    except (IndexError, UnicodeDecodeError, ValueError):
        return False


def _item(data: bytes, at: int, depth: int, strict: bool) -> int:
    # Where the item that begins at `at` ends; raises for what is not of the subset.
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return _simple(data, at, info)
    n = info
    if info >= 24:
        size = {24: 1, 25: 2, 26: 4}.get(info)
        if size is None or at + size > len(data):
            raise ValueError
        n = int.from_bytes(data[at : at + size], "big")
        at += size
    if major == 1 and n > 0x7FFFFFFF:
        raise ValueError
    if major < 2:
        return at
    if major < 4:
        if at + n > len(data):
            raise ValueError
        if major == 3 and strict:
            data[at : at + n].decode()
        return at + n
    if major == 6 or depth >= 5 or n > len(data):
        raise ValueError
    for _ in range(n):
        if major == 5:
            if data[at] >> 5 > 1:
                raise ValueError
            at = _item(data, at, depth + 1, strict)
        at = _item(data, at, depth + 1, strict)
    return at


def _simple(data: bytes, at: int, info: int) -> int:
    if info in (20, 21, 22):
        return at
    size = {25: 2, 26: 4, 27: 8}[info] if info in (25, 26, 27) else len(data) + 1
    if at + size > len(data) or not math.isfinite(cbor2.loads(data[at - 1 : at + size])):
        raise ValueError
    return at + size


def text(value: object) -> str:
    """A value as both interpreters can print it: floats by their single-precision bits where they fit."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{text(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    if isinstance(value, str):
        return "t" + value.encode().hex()
    if isinstance(value, bytes):
        return "b" + value.hex()
    if isinstance(value, float):
        return "f" + cbor2.dumps(value)[1:].hex()
    return repr(value)


def shape(value: object) -> str:
    """What of a value is new for a fuzzer: types and sizes by powers of two, not contents."""
    if isinstance(value, dict):
        return "{" + "".join(sorted({shape(v) for v in value.values()})) + f"{len(value).bit_length()}" + "}"
    if isinstance(value, list):
        return "[" + "".join(map(shape, value[:4])) + "]"
    return type(value).__name__[0] + (str(len(value).bit_length()) if isinstance(value, str | bytes) else "")


class Codec:
    """In this process: board's decoder on CPython, bridge's decoder, cbor2."""

    name = "codec"

    def seeds(self) -> list[bytes]:
        return bodies()

    def renew(self) -> None: ...

    def take(self, data: bytes) -> Hashable:
        within = inside(data)
        try:
            board: object = cbor.loads(data)
        except ValueError as error:
            board, why = REFUSED, str(error)
        else:
            why = shape(board)
        assert (board != REFUSED) == within, f"the board says {board!r:.80}, the subset says {within}"
        if within:
            assert text(board) == text(cbor2.loads(data)), "the board reads another value than cbor2"
        try:
            bridge = Fields.decode(data).map
        except MalformedError:
            assert not within or type(board) is not dict, "the bridge refuses what the board reads"
            return why
        # Outside, the bridge also reads heads of eight bytes and numbers without end, which no board writes.
        assert not within or text(bridge) == text(board), "the bridge reads another value than the board"
        return why, len(bridge).bit_length()
