"""The agent's files as one image for a ROMFS partition, built by mpremote: of the format there is nothing here."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from mpremote.romfs import make_romfs

from .agent import Image


def romfs(files: Image) -> bytes:
    """An image that holds these files, the same bytes each time; of no files the empty file system."""
    with TemporaryDirectory(prefix="boardlet-romfs-") as folder, redirect_stdout(StringIO()):  # it prints a tree
        for path, content in files.items():
            place = Path(folder) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return bytes(make_romfs(folder, mpy_cross=False))
