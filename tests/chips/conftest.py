"""Chips out of the bag, images that fit them, and ports and caches of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from chips.boards import kinds
from made import esp_image
from shop import Shop
from virtualboard.chip import VirtualChip

MakeChip = Callable[..., VirtualChip]


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ports, volumes and the table of images are the test's own; a chip in its ROM is not knocked at for long."""
    monkeypatch.setenv("BOARDLET_PORTS", str(tmp_path / "ports"))
    monkeypatch.setenv("BOARDLET_VOLUMES", str(tmp_path / "volumes/*"))
    monkeypatch.setenv("BOARDLET_USB", str(tmp_path / "usb"))
    monkeypatch.setenv("BOARDLET_IMAGES", str(tmp_path / "images.yaml"))
    monkeypatch.setenv("BOARDLET_KNOCK_S", "0.5")
    (tmp_path / "ports").mkdir()
    return tmp_path


@pytest.fixture
def make_chip(own: Path) -> Iterator[MakeChip]:
    """Makes chips that wait in their ROM."""
    with ExitStack() as stack:

        def make(key: str = "esp32", **more: Any) -> VirtualChip:
            kind = kinds()[key]
            firmware = esp_image(kind)
            (own / f"{key}.bin").write_bytes(firmware)
            folder = own / f"chip-{len(list(own.glob('chip-*')))}"
            folder.mkdir()
            return stack.enter_context(VirtualChip(folder, own / "ports", firmware, kind.offset, kind.chip, **more))

        yield make


@pytest.fixture
def shop(site: Site, cluster: Cluster, own: Path) -> Shop:
    """At a running site."""
    return Shop(site, cluster, own)
