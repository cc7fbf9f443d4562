"""Mutations of bytes, seeded: what a fuzzer sends next. Inputs that made something new happen become seeds themselves.

New is what the target says of an input and has not said before (the error's words, the shape of the value, what was
done): coarser than coverage of code, and it needs no instrumented interpreter.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
MAX_BYTES: Final = 2048
MAX_SEEDS: Final = 4000
KEPT_BYTES: Final = 256  # of an input in the corpus
# Heads of CBOR and of MQTT that mean something: lengths that cannot be, indefinite ones, tags, floats, packet types.
HEADS: Final = bytes.fromhex(
    "0018191a1b2038393a3b405f78797a7b80819b9fa0a1bbbfc0c1d8f4f5f6f7f8f9fafbff1c3032e0d02090407f"
)
TAILS: Final = (b"", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x7c\x00")


class Pool:
    """Seeds of one target, and what was seen of it."""

    def __init__(self, seeds: Iterable[bytes], seed: int) -> None:
        self.rng = random.Random(seed)
        self.seeds = [bytes(one) for one in seeds] or [b""]
        self.seen: set[Hashable] = set()
        self.found: list[bytes] = []
        """Inputs that made something new happen, in their order."""

    def next(self) -> bytes:
        """The next input."""
        return mutate(self.rng, self.rng.choice(self.seeds), self.rng.choice(self.seeds))

    def learn(self, data: bytes, said: Hashable, whole: bytes | None = None) -> bool:
        """Keep an input as a seed if what was said of it is new; whether it was. `whole` is what it was a part of."""
        new = said not in self.seen and len(self.seeds) < MAX_SEEDS
        if new:
            self.seen.add(said)
            self.seeds.append(data)
            self.found.append(whole or data)
        return new


def mutate(rng: random.Random, base: bytes, other: bytes) -> bytes:
    """One to four changes of `base`; parts of `other` may be spliced in."""
    data = bytearray(base)
    for _ in range(1 + rng.getrandbits(2)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(10):
            case 0 if data:
                data[at - 1] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at - 1] = rng.randrange(256)
            case 2 if data:
                data[at - 1] = rng.choice(HEADS)
            case 3:
                data[at:at] = bytes([rng.choice(HEADS)]) + rng.choice(TAILS)
            case 4:
                del data[at : at + 1 + rng.randrange(8)]
            case 5:
                data[at:at] = data[at : at + 1 + rng.randrange(16)]
            case 6 if other:
                cut = rng.randrange(len(other))
                data[at:at] = other[cut : cut + 1 + rng.randrange(24)]
            case 7:
                del data[at:]
            case 8:  # one deeper, or many
                data[at:at] = rng.choice((b"\x81", b"\xa1\x00")) * rng.choice((1, 1, 2, 6, 200))
            case _:
                data[at : at + 4] = rng.randbytes(rng.randrange(5))
    return bytes(data[:MAX_BYTES])


def kept(target: str) -> list[bytes]:
    """Inputs that once found something, or went deep: lines of hex, `#` begins a word about them."""
    path = CORPUS / f"{target}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [bytes.fromhex(text) for line in lines if (text := line.partition("#")[0].strip())]


def keep(target: str, found: Sequence[bytes], most: int, words: str) -> int:
    """Add up to `most` inputs to those that are kept, evenly out of all depths of a run; how many were added."""
    path, old = CORPUS / f"{target}.txt", set(kept(target))
    new = [data for data in found if len(data) <= KEPT_BYTES and data not in old]
    step = max(1, len(new) // most) if most else 1
    chosen = new[step - 1 :: step][:most]
    with path.open("a") as out:
        out.writelines(f"{data.hex()}  # {words}\n" for data in chosen)
    return len(chosen)
