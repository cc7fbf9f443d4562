from collections.abc import Mapping, Sequence
from typing import TypeAlias

Item: TypeAlias = "bool | int | float | str | bytes | None | Sequence[Item] | Mapping[int, Item]"

def dumps(obj: Item) -> bytes:
    """Encode one item; integers up to 32 bits, floats rounded to single precision.

    Raises ValueError for what the subset does not hold (PROTOCOL.md section 3).
    """

def loads(buf: bytes | bytearray | memoryview) -> Item:
    """Decode exactly one item; raises ValueError for anything malformed (PROTOCOL.md section 3)."""
