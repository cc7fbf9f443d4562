"""Chaos: any order of edits, faults, crashes and restores, with every promise judged at each step (docs/lab.md)."""

from __future__ import annotations

import os

import pytest
from chaos import DEADLY, MODELS, World
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

# `make chaos` sets the number of examples; the suite takes a fixed set of them, always the same.
DEEP = int(os.environ.get("BOARDLET_CHAOS", "0"))
QUICK = 120
PROFILE = settings(
    max_examples=DEEP or QUICK,
    derandomize=not DEEP,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if DEEP else [Phase.generate],
)

WHO = st.sampled_from(["board", "bridge"])
FEW = st.integers(1, 12)


class Chaos(RuleBasedStateMachine):
    """One world; whatever happened to it, it settles in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World().__enter__()

    def teardown(self) -> None:
        try:
            self.world.settle()
        finally:
            self.world.__exit__(None, None, None)

    @initialize(joined=st.booleans())
    def begin(self, joined: bool) -> None:
        if joined:
            self.world.silicon.power_on()
            self.world.run(40_000)

    # Time
    @rule(n=FEW)
    def nibble(self, n: int) -> None:
        self.world.nibble(n)

    @rule(n=st.integers(1, 60))
    def bite(self, n: int) -> None:
        self.world.nibble(n)

    @rule(ms=st.sampled_from([1, 100, 1_000, 3_000]))
    def moment(self, ms: int) -> None:
        self.world.run(ms)

    @rule(s=st.sampled_from([6, 20, 40, 100, 400]))
    def wait(self, s: int) -> None:
        self.world.run(1000 * s)

    # The user
    @rule(value=st.sampled_from([5, 20, 21.5, 30]))
    def edit_target(self, value: float) -> None:
        self.world.edit_property("target", value)

    @rule(value=st.booleans())
    def edit_led(self, value: bool) -> None:
        self.world.edit_property("led", value)

    @rule(value=st.sampled_from([99, "hot", None]))
    def edit_wrongly(self, value: object) -> None:
        self.world.edit_property("target", value)

    @rule(value=st.sampled_from(["a", "b", DEADLY]))
    def edit_label(self, value: str) -> None:
        self.world.edit_property("label", value)

    @rule(n=st.integers(0, 9))
    def label_the_object(self, n: int) -> None:
        self.world.edit(lambda obj: obj["metadata"].__setitem__("labels", {"n": str(n)}))

    @rule(seconds=st.sampled_from([10, 60, 300]))
    def edit_heartbeat(self, seconds: int) -> None:
        self.world.edit(lambda obj: obj["spec"].__setitem__("settings", {"heartbeatSeconds": seconds}))

    @rule(n=st.integers(0, len(MODELS) - 1))
    def edit_model(self, n: int) -> None:
        self.world.set_model(n)

    @rule()
    def delete(self) -> None:
        self.world.delete()

    @precondition(lambda self: self.world.object is None)
    @rule()
    def create(self) -> None:
        self.world.create()

    @precondition(lambda self: self.world.condition("Restored"))
    @rule()
    def accept(self) -> None:
        self.world.accept()

    # The cluster
    @precondition(lambda self: len(self.world.api.backups) < 3)
    @rule()
    def backup(self) -> None:
        self.world.api.backup()

    @precondition(lambda self: self.world.api.backups)
    @rule(n=st.integers(0, 2))
    def restore(self, n: int) -> None:
        self.world.restore(n % len(self.world.api.backups))

    @rule(up=st.booleans())
    def api_server(self, up: bool) -> None:
        self.world.api.up = up
        if not up:
            for process in self.world.bridges:
                process.api_away()

    # Bridges
    @precondition(lambda self: self.world.bridges)
    @rule(last=st.booleans())
    def kill_bridge(self, last: bool) -> None:
        self.world.kill(self.world.bridges[-1 if last else 0])

    @precondition(lambda self: len(self.world.bridges) < 2)
    @rule()
    def start_bridge(self) -> None:
        self.world.start_bridge()

    @precondition(lambda self: self.world.bridges)
    @rule(paused=st.booleans())
    def pause_bridge(self, paused: bool) -> None:
        self.world.pause(self.world.bridges[0], paused)

    @precondition(lambda self: self.world.bridges)
    @rule(api=st.booleans(), watch=st.booleans())
    def stall_cluster(self, api: bool, watch: bool) -> None:
        process = self.world.bridges[0]
        process.api_stalled, process.watch_stalled = api, watch

    @precondition(lambda self: self.world.bridges)
    @rule(watch=st.booleans())
    def break_cluster(self, watch: bool) -> None:
        process = self.world.bridges[0]
        if watch and process.watch is not None:
            process.watch.lose()
        else:
            process.lose_answers()

    # The broker
    @rule(who=WHO, lose_up=st.booleans(), lose_down=st.booleans(), late_will=st.booleans())
    def cut(self, who: str, lose_up: bool, lose_down: bool, late_will: bool = False) -> None:
        connection = self.world.connection(who)
        self.world.hub.wills_come_late = late_will
        if connection is not None:
            self.world.hub.cut(connection, lose_up=lose_up, lose_down=lose_down)

    @rule(who=WHO, stalled=st.booleans())
    def stall(self, who: str, stalled: bool) -> None:
        connection = self.world.connection(who)
        if connection is not None:
            connection.stalled = stalled

    @rule()
    def note_retained(self) -> None:
        self.world.hub.snapshots[:] = [dict(self.world.hub.retained)]

    @rule(kept=st.sampled_from(["all", "none", "older"]))
    def restart_broker(self, kept: str) -> None:
        hub = self.world.hub
        older = hub.snapshots[0] if hub.snapshots else {}
        hub.restart({"all": hub.retained, "none": {}, "older": older}[kept])

    @rule(up=st.booleans())
    def broker(self, up: bool) -> None:
        hub = self.world.hub
        if hub.up and not up:
            hub.restart(hub.retained)
        hub.up = up

    @rule(n=st.integers(1, 3), deliveries=st.booleans())
    def drop(self, n: int, deliveries: bool) -> None:
        if deliveries:
            self.world.hub.drop_deliveries = n
        else:
            self.world.hub.drop_publishes = n

    @rule(n=st.integers(1, 3), value=st.sampled_from([5, 20, 21.5, 30]))
    def swallow_an_edit(self, n: int, value: float) -> None:
        """The broker acknowledges what comes of an edit, and drops it."""
        self.world.hub.drop_publishes = n
        self.world.edit_property("target", value)
        self.world.run(3_000)

    @precondition(lambda self: self.world.hub.late_wills)
    @rule()
    def late_will(self) -> None:
        self.world.hub.late()

    @rule(who=WHO, n=st.integers(1, 4))
    def redeliver(self, who: str, n: int) -> None:
        connection = self.world.connection(who)
        if connection is not None:
            self.world.hub.redeliver(connection, n)

    @precondition(lambda self: self.world.hub.history)
    @rule(n=st.integers(0, 40))
    def replay(self, n: int) -> None:
        self.world.replay(n)

    # The board
    @rule(on=st.booleans())
    def power(self, on: bool) -> None:
        silicon = self.world.silicon
        if on and not silicon.powered:
            silicon.power_on()
        elif not on:
            silicon.power_off()

    @rule(steps=st.integers(0, 14), tear=st.integers(0, 3))
    def power_cut(self, steps: int, tear: int) -> None:
        self.world.silicon.fuse, self.world.silicon.flash.tear = steps, tear

    @precondition(lambda self: self.world.silicon.powered)
    @rule()
    def crash(self) -> None:
        self.world.silicon.crash()

    @rule()
    def replace_board(self) -> None:
        self.world.silicon.erase()

    @rule(there=st.booleans())
    def network(self, there: bool) -> None:
        silicon = self.world.silicon
        silicon.network = there
        connection = self.world.connection("board")
        if not there and connection is not None:
            connection.stalled = True

    @rule(stuck=st.booleans())
    def drift(self, stuck: bool) -> None:
        silicon = self.world.silicon
        silicon.pins[2] = 1 - silicon.pins.get(2, 0)
        silicon.stuck = stuck

    @rule(broken=st.booleans())
    def break_pins(self, broken: bool) -> None:
        self.world.silicon.broken = broken

    @rule(value=st.integers(0, 100))
    def sensor(self, value: int) -> None:
        self.world.silicon.adc = value


@pytest.mark.timeout(0 if DEEP else 300)
@pytest.mark.parametrize("steps", [20, 60])
def test_chaos(steps: int) -> None:
    """No order of faults, within the examples, breaks a promise of the protocol, and everything settles after it."""
    run_state_machine_as_test(Chaos, settings=settings(PROFILE, stateful_step_count=steps))
