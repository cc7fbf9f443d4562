"""What a long story prints on its way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told(what: str) -> Iterator[None]:
    """Print how long something took: `make node` and `make arm64` show it."""
    began = time.monotonic()
    yield
    print(f"\n    {time.monotonic() - began:5.1f} s  {what}", flush=True)
