"""Listing in pages: a page that fails costs that page, not the listing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from boardlet_bridge.kube import resync
from boardlet_bridge.kube.client import Gone, Throttled, Unavailable
from boardlet_bridge.kube.resync import Resync


class Pages:
    """A client whose pages of Boards hold one object each, and which fails as it is told to."""

    def __init__(self, *failures: tuple[str, Exception]) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []

    async def list_page(self, plural: str, limit: int, token: str = "", namespace: str | None = None) -> dict[str, Any]:
        if plural == resync.MODELS:
            return {"items": [], "metadata": {}}
        self.asked.append(token)
        if self.failures and self.failures[0][0] == token:
            raise self.failures.pop(0)[1]
        number = int(token or 0)
        item = {"metadata": {"namespace": "n", "name": f"b{number}", "resourceVersion": "1"}}
        return {"items": [item], "metadata": {"continue": str(number + 1) if number < 2 else ""}}


class Sink:
    """Keeps the names that it is told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_board(self, change: str, obj: Mapping[str, Any]) -> None:
        self.names.append(obj["metadata"]["name"])

    def on_model(self, change: str, obj: Mapping[str, Any]) -> None: ...

    def on_rewound(self) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "FIRST_PAUSE_S", 0.001)


def listed(pages: Pages) -> list[str]:
    sink = Sink()
    asyncio.run(Resync(pages, sink, [], dict, dict).once())  # type: ignore[arg-type]
    return sink.names


def test_a_failed_page_is_asked_for_again() -> None:
    """What was listed before it is not listed again."""
    pages = Pages(("1", Unavailable("503")), ("1", Throttled("429", 0.0)), ("2", Unavailable("cut")))
    assert listed(pages) == ["b0", "b1", "b2"]
    assert pages.asked == ["", "1", "1", "1", "2", "2"]


def test_an_expired_listing_begins_anew() -> None:
    """After a 410 the first page is asked for again."""
    pages = Pages(("1", Gone("410")))
    assert listed(pages) == ["b0", "b0", "b1", "b2"]


def test_an_api_server_that_is_away_is_told_at_once() -> None:
    """A first page that fails, or one that goes on failing, fails the listing."""
    with pytest.raises(Unavailable):
        listed(Pages(("", Unavailable("refused"))))
    with pytest.raises(Unavailable):
        listed(Pages(*[("1", Unavailable("500"))] * resync.PAGE_TRIES))
