"""The fuzzers import one another, and the core's peer, by name; `python tests/fuzz` does too."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "core")]
