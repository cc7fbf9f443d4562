"""Keys under chaos: whatever fails while a board is given its next key, it comes back, under a key that never falls."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from keyed import KeyedWorld
from test_machine import PROFILE, Chaos

DEEP = int(os.environ.get("BOARDLET_CHAOS", "0"))
QUICK = 20


class Keys(Chaos):
    """One world with logins; its board is given keys while everything fails that may."""

    def __init__(self) -> None:
        super(Chaos, self).__init__()
        self.world: KeyedWorld = KeyedWorld().__enter__()

    # A board that is replaced, an object that is made anew and a restored cluster need a person's hand; a deadly
    # value is of no interest here.
    def replace_board(self) -> None: ...
    def delete(self) -> None: ...
    def restore(self) -> None: ...
    def backup(self) -> None: ...
    def edit_label(self) -> None: ...

    @rule(by=st.sampled_from([1, 1, 2, 100]))
    def rotate(self, by: int) -> None:
        self.world.rotate(by)

    @rule(by=st.sampled_from([1, 100]), steps=st.integers(0, 30), tear=st.integers(0, 3))
    def cut_while_rotating(self, by: int, steps: int, tear: int) -> None:
        """The power goes somewhere in the middle."""
        self.world.rotate(by)
        self.world.silicon.fuse, self.world.silicon.flash.tear = steps, tear

    @rule()
    def revoke(self) -> None:
        self.world.revoke()


@pytest.mark.timeout(0 if DEEP else 300)
@pytest.mark.parametrize("steps", [20, 50])
def test_keys(steps: int) -> None:
    """No order of faults, within the examples, locks a board out or takes it back to a key before."""
    run_state_machine_as_test(Keys, settings=settings(PROFILE, max_examples=DEEP or QUICK, stateful_step_count=steps))


@pytest.fixture
def world() -> Iterator[KeyedWorld]:
    """A board that runs under its first key."""
    with KeyedWorld() as made:
        assert isinstance(made, KeyedWorld)
        made.silicon.power_on()
        made.run(60_000)
        assert not made.difference()
        yield made


@pytest.mark.parametrize("tear", range(4))
def test_power_is_cut_at_each_step(world: KeyedWorld, tear: int) -> None:
    """Of flash, of packets and of pins, until the board has the new key alone; the file then written is torn."""
    finished = False
    for step in range(80):
        world.rotate(1)
        world.silicon.fuse, world.silicon.flash.tear = step, tear
        world.run(20_000)
        finished = world.silicon.fuse is not None and not world.difference()
        world.silicon.fuse = None
        world.wait_for(f"key {world.wanted}, cut at step {step}", lambda: not world.difference(), 600_000)
        if finished:
            break
    assert finished, "the cuts must reach its end"


@pytest.mark.parametrize("kept", [True, False])
def test_the_bridge_is_killed_at_each_step(world: KeyedWorld, kept: bool) -> None:
    """With the broker's store lost at that moment too: the next bridge lets the board in, and ends what was begun."""
    for step in range(1, 70):
        world.rotate(1)
        world.nibble(step)
        for process in list(world.bridges):
            world.kill(process)
        world.hub.restart(world.hub.retained if kept else {})
        world.run(100_000)
        world.start_bridge()
        world.wait_for(f"key {world.wanted}, killed at step {step}", lambda: not world.difference(), 600_000)


def test_the_bridge_is_killed_before_a_status(world: KeyedWorld) -> None:
    """The cluster takes no write for seconds, then the bridge dies and the broker loses its store: no board is lost."""
    for seconds in range(1, 20, 2):
        world.bridges[0].api_stalled = True
        world.rotate(1)
        world.run(1000 * seconds)
        world.kill(world.bridges[0])
        world.hub.restart({})
        world.start_bridge()
        world.wait_for(f"key {world.wanted}, after {seconds} s", lambda: not world.difference(), 600_000)
