"""Tests beside this file import the parts of their world by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
