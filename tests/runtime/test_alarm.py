"""Wakes: all of them by one timer."""

from __future__ import annotations

from collections.abc import Callable

from boardlet_bridge.runtime.alarm import Alarm


def test_timers_do_not_gather() -> None:
    """Each late ring asks for the next one and then for an early one before it, as a question to a board does: every
    wake comes at its time, once, and there are never more timers than wakes."""
    timers: list[tuple[float, Callable[[], None]]] = []
    rung: list[tuple[float, str]] = []
    now = 0.0

    def ring(name: tuple[str, str]) -> None:
        rung.append((now, name[1]))
        if name[1] == "late":
            alarm.at(now + 60, ("n", "late"))
            alarm.at(now + 10, ("n", "early"))

    alarm = Alarm(lambda when, callback: timers.append((when, callback)), lambda: now, ring)
    alarm.at(60, ("n", "late"))
    for _ in range(1000):
        timers.sort(key=lambda timer: timer[0])
        now, callback = timers.pop(0)
        callback()
        assert len(timers) <= len(alarm)
    assert [at for at, name in rung if name == "late"] == [60.0 * n for n in range(1, 501)]
    assert [at for at, name in rung if name == "early"] == [60.0 * n + 10 for n in range(1, 501)]
