"""Root keys: a site has one; while that is replaced there are two, each for the key numbers from its first one on.

A board's key number therefore says from which root its key follows, on the wire as on the object, and moving a board to
the new root is giving it a higher number, with all that holds of numbers: none below what was proven is taken again. A
root that was removed serves nobody: numbers below the lowest root's first one are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

KEY_BYTES: Final = 32
FIRST_KEY_NUMBER: Final = 1
MAX_KEY_NUMBER: Final = 2**31 - 1
MAX_ROOTS: Final = 4  # one more than anybody needs who is late with the last replacement
_LINE: Final = re.compile(rf"(?:([1-9][0-9]{{0,9}})[ \t:]+)?([0-9a-fA-F]{{{2 * KEY_BYTES}}})")


class RootKeyInvalid(ValueError):
    """What should be root keys is none, or none serves a number; the message says what to do, and never a key."""


@dataclass(frozen=True, slots=True)
class RootKey:
    """One root key, and the lowest key number that follows from it."""

    first: int
    key: bytes = field(repr=False)


RootKeys = tuple[RootKey, ...]  # the newest, which has the highest first number, comes first; never empty


def parse(text: str) -> RootKeys:
    """The keys in a file: 64 hex digits for all numbers, or lines `FIRST-NUMBER HEX-DIGITS`; raises RootKeyInvalid."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [_LINE.fullmatch(line) for line in lines]
    keys = [RootKey(int(m[1] or FIRST_KEY_NUMBER), bytes.fromhex(m[2])) for m in found if m]
    if not lines or len(keys) != len(lines):
        at = 1 + next((n for n, m in enumerate(found) if m is None), 0)
        raise RootKeyInvalid(
            f"line {at} must be 64 hexadecimal digits, or a root key's first key number and its 64 hexadecimal digits"
        )
    firsts = [key.first for key in keys]
    if len(set(firsts)) != len(keys) or len({key.key for key in keys}) != len(keys) or max(firsts) > MAX_KEY_NUMBER:
        raise RootKeyInvalid("root keys and their first key numbers must differ, and be at most 2147483647")
    if len(keys) > MAX_ROOTS:
        raise RootKeyInvalid(f"there are {len(keys)} root keys, at most {MAX_ROOTS} are read: remove those of the past")
    return tuple(sorted(keys, key=lambda key: -key.first))


def only(key: bytes) -> RootKeys:
    """The keys of a site that has one root key."""
    return (RootKey(FIRST_KEY_NUMBER, key),)


def serving(keys: RootKeys, number: int) -> RootKey:
    """The root key that a key number follows from; raises RootKeyInvalid where that one has been removed."""
    for root in keys:
        if number >= root.first or root.first == FIRST_KEY_NUMBER:
            return root
    raise RootKeyInvalid(
        f"the root key that key number {number} follows from has been removed: raise the Board's "
        f"spec.credential.keyNumber to {keys[0].first}"
    )
