"""Images by name: a table of URL and SHA-256, and a cache of the files, so that a site without a network can flash too.

The table is images.yaml beside this file and the user's own, which wins. A file is fetched once, resumed where a broken
line left it, kept under its hash, and never used without having that hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import yaml
from provision import cache

from . import BAD_IMAGE, ChipError
from .boards import Kind, kinds
from .image import DFU_MAGIC, UF2_MAGIC, ImageFile, read

BUILT_IN: Final = Path(__file__).with_name("images.yaml")
VARIABLE: Final = "BOARDLET_IMAGES"
_CHUNK: Final = 1 << 16
_SILENCE_S: Final = 30.0  # a server that says nothing for so long is gone
_MAX_BYTES: Final = 64 << 20
_SHA256: Final = re.compile("[0-9a-f]{64}")

Received = Callable[[int, int], None]  # bytes so far, bytes in all (0: not known)


@dataclass(frozen=True, slots=True)
class Pin:
    """One image of the table; `board` is a folder in firmware/boards, `url` empty for a file that was added as such."""

    name: str
    board: str
    url: str
    sha256: str

    @property
    def cached(self) -> Path:
        """Where its file is, or would be."""
        return cache.root() / "images" / self.sha256 / self.name


def own_table() -> Path:
    """The user's table."""
    chosen = os.environ.get(VARIABLE)
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "boardlet"
    return Path(chosen) if chosen else folder / "images.yaml"


def pins() -> dict[str, Pin]:
    """All images that are known by name; raises ChipError for a table that is damaged."""
    return {**_table(BUILT_IN), **_table(own_table())}


def find(wanted: str | None, kind: Kind, received: Received) -> ImageFile:
    """The image that `wanted` names (a file or a pin), else the one pinned for the kind; fetched if need be.

    Raises ChipError.
    """
    found = _named(wanted, received) if wanted else _pinned_for(kind, received)
    found.check(kind)
    return found


def add(source: str, board: str | None, sha256: str | None, received: Received) -> Pin:
    """Take a URL or a file into cache and table, and return what it is known as; raises ChipError."""
    if "://" in source:
        name = unquote(urlsplit(source).path.rpartition("/")[2])
        partial = cache.scratch("images") / hashlib.sha256(source.encode()).hexdigest()
        _fetch(source, partial, received)
        content = partial.read_bytes()
    else:
        name, content = Path(source).name, read(Path(source)).content
        partial = None
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise ChipError(f"{source} does not end in a file's name", BAD_IMAGE)
    actual = hashlib.sha256(content).hexdigest()
    if partial:
        partial.unlink()
    if sha256 and sha256.lower() != actual:
        raise ChipError(
            f"{source} has the SHA-256 {actual}, not {sha256}: it is not the file that was meant", BAD_IMAGE
        )
    kind = _kind_of(name, content, board)
    pin = Pin(name, kind.key, source if "://" in source else "", actual)
    ImageFile(name, pin.cached, content).check(kind)
    _keep(pin, content)
    _remember(pin)
    return pin


def _named(wanted: str, received: Received) -> ImageFile:
    if "://" in wanted:
        raise ChipError(
            f"{wanted} is not pinned to a hash: `boardlet images add {wanted}` first, then --image with its name",
            BAD_IMAGE,
        )
    if Path(wanted).is_file():
        return read(Path(wanted))
    pin = pins().get(wanted)
    if pin is None:
        raise ChipError(f"there is no image {wanted}: neither a file nor one of `boardlet images list`", BAD_IMAGE)
    return _load(pin, received)


def _pinned_for(kind: Kind, received: Received) -> ImageFile:
    fitting = [pin for pin in pins().values() if pin.board == kind.key]
    if not fitting:
        raise ChipError(
            f"no image of MicroPython is known for {kind.name}: get {_which(kind)} from {kind.page} and say "
            "--image FILE, or `boardlet images add URL-or-FILE` once",
            BAD_IMAGE,
        )
    return _load(fitting[-1], received)  # the one that was added last


def _which(kind: Kind) -> str:
    return f"the .dfu of your board (as {kind.micropython_board})" if kind.method == "dfu" else kind.micropython_board


def _load(pin: Pin, received: Received) -> ImageFile:
    if not pin.cached.is_file():
        if not pin.url:
            raise ChipError(
                f"the file of {pin.name} is gone from the cache: `boardlet images add FILE` again", BAD_IMAGE
            )
        partial = cache.scratch("images") / pin.sha256
        _fetch(pin.url, partial, received)
        content = partial.read_bytes()
        partial.unlink()
        actual = hashlib.sha256(content).hexdigest()
        if actual != pin.sha256:
            raise ChipError(
                f"{pin.url} gave a file with the SHA-256 {actual}, not {pin.sha256} as pinned: nothing was written",
                BAD_IMAGE,
            )
        _keep(pin, content)
    found = read(pin.cached)
    if found.sha256 != pin.sha256:
        pin.cached.unlink()
        raise ChipError(f"{pin.name} was damaged in the cache and has been removed: run it again", BAD_IMAGE)
    return found


def _fetch(url: str, partial: Path, received: Received) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ChipError(f"{url}: only http and https are understood", BAD_IMAGE)
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_SILENCE_S) as answer:
            resumed = answer.status == 206
            have = have if resumed else 0
            total = have + int(answer.headers.get("Content-Length") or 0)
            with open(partial, "ab" if resumed else "wb") as out:
                while part := answer.read(_CHUNK):
                    have += out.write(part)
                    received(have, total)
                    if have > _MAX_BYTES:
                        raise ChipError(f"{url} is larger than any image", BAD_IMAGE)
    except (OSError, HTTPException, ValueError) as error:
        if getattr(error, "code", None) == 416:  # all of it is here
            return
        raise ChipError(f"cannot fetch {url}: {error}: run it again, it goes on where it stopped", BAD_IMAGE) from error
    if total and have < total:
        raise ChipError(f"{url} broke off after {have} of {total} bytes: run it again, it goes on there", BAD_IMAGE)


def _kind_of(name: str, content: bytes, board: str | None) -> Kind:
    if board is not None:
        if board not in kinds():
            raise ChipError(f"there is no board {board}: one of {', '.join(kinds())}", BAD_IMAGE)
        return kinds()[board]
    fitting = [kind for kind in kinds().values() if re.match(re.escape(kind.micropython_board) + r"[-.]", name)]
    if not fitting:  # then by its header, which an ESP8266's does not have
        is_uf2 = content[:4] == UF2_MAGIC[0].to_bytes(4, "little")
        told = [k for k in kinds().values() if k.method == "uf2" or k.image_chip_id is not None]
        fitting = [kind for kind in told if (kind.method == "uf2") == is_uf2 and _fits(name, content, kind)]
        if content.startswith(DFU_MAGIC):
            fitting = [kind for kind in kinds().values() if kind.method == "dfu"]
    if len(fitting) != 1:
        raise ChipError(
            f"{name} does not say for which board it is: name it, --board one of {', '.join(kinds())}", BAD_IMAGE
        )
    return fitting[0]


def _fits(name: str, content: bytes, kind: Kind) -> bool:
    try:
        ImageFile(name, Path(name), content).check(kind)
    except ChipError:
        return False
    return True


def _keep(pin: Pin, content: bytes) -> None:
    pin.cached.parent.mkdir(parents=True, exist_ok=True)
    partial = pin.cached.with_name(f".{pin.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.rename(pin.cached)


def _remember(pin: Pin) -> None:
    table = own_table()
    table.parent.mkdir(parents=True, exist_ok=True)
    entries = {name: old for name, old in _table(table).items() if name != pin.name}
    entries[pin.name] = pin
    text = {each.name: {"board": each.board, "url": each.url, "sha256": each.sha256} for each in entries.values()}
    partial = table.with_name(f".{table.name}.{os.getpid()}")
    partial.write_text(yaml.safe_dump(text, sort_keys=False))
    partial.rename(table)


def _table(path: Path) -> dict[str, Pin]:
    try:
        raw = yaml.safe_load(path.read_text()) or {}
        return {str(name): _pin(str(name), entry) for name, entry in raw.items()}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ChipError(
            f"{path} is damaged ({error}): each entry is NAME: {{board, url, sha256}}", BAD_IMAGE
        ) from error


def _pin(name: str, entry: Mapping[str, Any]) -> Pin:
    pin = Pin(name, str(entry["board"]), str(entry.get("url", "")), str(entry["sha256"]).lower())
    if not _SHA256.fullmatch(pin.sha256) or pin.board not in kinds():
        raise ValueError(f"{name} needs a board of firmware/boards and a sha256 of 64 hex digits")
    return pin
