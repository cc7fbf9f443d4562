"""Tests beside this file import their peer by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
