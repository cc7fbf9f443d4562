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


def test_a_bridge_hears_of_an_edit_from_the_board_first(chaos: Chaos) -> None:
    """A board with a longer heartbeat, which a second bridge learns only after its report, is not called silent."""
    chaos.begin(joined=True)
    chaos.start_bridge()
    chaos.wait(s=20)
    chaos.edit_heartbeat(seconds=300)
    chaos.wait(s=100)


def test_a_restore_gives_a_generation_twice(chaos: Chaos) -> None:
    """An edit, a restore and another edit, of the same generation and version as the first, is an edit all the same."""
    chaos.moment(ms=3000)
    chaos.backup()
    chaos.edit_heartbeat(seconds=10)
    chaos.bite(n=23)
    chaos.restore(n=0)
    chaos.edit_led(value=False)


def test_a_delay_that_is_nearly_over(chaos: Chaos) -> None:
    """A bridge that knows an old model and one that knows the new one mint against each other, at the allowed rate."""
    chaos.wait(s=100)
    chaos.stall_cluster(api=True, watch=True)
    chaos.edit_model(n=1)
    chaos.restart_broker(kept="none")
    chaos.start_bridge()
    chaos.wait(s=40)


def test_a_revision_that_somebody_else_gave_up(chaos: Chaos) -> None:
    """The board gave up a revision of a Board that is gone: the next Board's first one is not that one."""
    chaos.begin(joined=True)
    chaos.note_retained()
    chaos.edit_label(value="die")
    chaos.delete()
    chaos.wait(s=400)
    chaos.restart_broker(kept="older")
