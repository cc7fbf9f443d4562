"""`make fuzz`: every fuzzer for its share of a million inputs, a line each; ends with 1 at the first input that broke.

usage: python tests/fuzz/fuzz.py [--inputs 1000000] [--seed N] [--keep 0] [TARGET …]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

import board_target
import core_target
import session_target
from codec_target import Codec
from fuzzing import Broken, Outcome, Target, run
from mutation import keep, kept

# Of each thousand inputs: the codecs are quick and deep, a connection is dear.
SHARES: Final = {"codec": 300, "codec-mpy": 300, "core": 150, "agent-mpy": 200, "session": 50}


def fuzz(name: str, count: int, seed: int, folder: Path) -> Outcome:
    """One target; raises Broken."""
    targets: dict[str, Callable[[], Outcome]] = {
        "codec": lambda: _here(Codec(), count, seed),
        "codec-mpy": lambda: board_target.codec(count, seed, folder),
        "core": lambda: _here(core_target.Core(), count, seed),
        "agent-mpy": lambda: board_target.agent(count, seed, folder),
        "session": lambda: session_target.session(count, seed),
    }
    return targets[name]()


def _here(target: Target, count: int, seed: int) -> Outcome:
    return run(target, count, seed, kept(target.name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=int, default=0, help="add so many inputs that went deep to each target's corpus")
    parser.add_argument("targets", nargs="*", default=list(SHARES), metavar="TARGET")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    for name in chosen.targets:
        with TemporaryDirectory(prefix="boardlet-fuzz-") as folder:
            try:
                outcome = fuzz(name, chosen.inputs * SHARES[name] // 1000, chosen.seed, Path(folder))
                print(outcome, flush=True)
                if chosen.keep:
                    keep(name.removesuffix("-mpy"), outcome.found, chosen.keep, f"went deep, seed {chosen.seed}")
            except Broken as broken:
                corpus = f"tests/fuzz/corpus/{name.removesuffix('-mpy')}.txt"
                print(f"{broken}\nkeep it as a line of {corpus}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
