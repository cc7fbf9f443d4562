"""The world of an engine that is tested, and the objects that it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from boardlet_bridge.core.board import FINALIZER


class Outlet:
    """The world: keeps what is published and refused; its time is the test's."""

    def __init__(self) -> None:
        self.time = 100.0
        self.is_sure = True
        self.published: list[str] = []
        self.refusals: list[str] = []
        self.marks: list[tuple[str, str, str]] = []
        self.admitted: dict[str, int] = {}

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.published.append(topic)

    def mark(self, key: tuple[str, str, str], urgent: bool) -> None:
        self.marks.append(key)

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None: ...
    def tell(self, obj: Mapping[str, Any], notice: object) -> None: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...

    def now(self) -> float:
        return self.time

    def refused(self, cause: str) -> None:
        self.refusals.append(cause)

    def unknown_board(self, board_id: str) -> None: ...
    def warned(self, reason: str) -> None: ...
    def doubt(self) -> None: ...
    def admit(self, board_id: str, number: int) -> None:
        self.admitted[board_id] = number

    def sure(self) -> bool:
        return self.is_sure


def board(number: int, namespace: str = "default", created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"g{number}",
            "namespace": namespace,
            "uid": f"1111111{number}-2222-4333-8444-555555555555",
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": created,
            "finalizers": [FINALIZER],
        },
        "spec": {"boardID": f"board000{number}", "modelRef": {"name": "m"}},
    }
