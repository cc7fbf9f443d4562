"""Schedules that chaos has found: each once broke a promise, and is kept with what was wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_machine import Chaos


@pytest.fixture
def chaos() -> Iterator[Chaos]:
    """The machine, driven by hand; in the end everything must be right."""
    made = Chaos()
    yield made
    made.teardown()


def test_a_connection_that_never_came_up_is_forgotten(chaos: Chaos) -> None:
    """A bridge reads the mailbox, its connection ends before it is up, the broker loses its store: it mails again."""
    chaos.moment(ms=3000)
    chaos.drop(n=1, deliveries=False)
    chaos.cut(who="bridge", lose_up=False, lose_down=False)
    chaos.moment(ms=3000)
    chaos.restart_broker(kept="none")


def test_two_bridges_quarrel_about_a_model(chaos: Chaos) -> None:
    """Two bridges that see a model at different times mint above each other, are slowed down, and agree in the end."""
    chaos.start_bridge()
    chaos.wait(s=400)
    chaos.edit_model(n=2)
    chaos.moment(ms=3000)
    chaos.edit_model(n=0)


def test_timers_do_not_multiply(chaos: Chaos) -> None:
    """However often a bridge looks at an object whose desired it has not read back, it waits with the same timer."""
    chaos.begin(joined=True)
    connection = chaos.world.connection("bridge")
    assert connection is not None
    connection.stalled = True
    chaos.edit_target(value=30)
    for n in range(60):
        chaos.moment(ms=1)
        chaos.world.edit(lambda obj, n=n: obj["metadata"].__setitem__("annotations", {"n": str(n)}))
    chaos.wait(s=6)


def test_a_model_comes_while_ticks_are_far_from_zero(chaos: Chaos) -> None:
    """A property that begins late in the life of a board is read at once, not when the ticks have come round."""
    chaos.power(on=True)
    chaos.moment(ms=3000)
    assert chaos.world.object is not None
    assert chaos.world.object["status"]["reported"]["temp"] == 20
