"""A week without the cluster, on a counted clock: the real bridge, whole, and the real agent on its flash.

The site goes on by itself: the board works, reports and is heard; bridge, broker and board are restarted, and a clock
jumps. Nothing grows, nothing is written, and on return each thing that has changed is written once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from boardlet_bridge.core.model import compile_model
from boardlet_wire.topic import topic
from bridgeprocess import ModelTransport, ModelWatch
from chaos import BOARD_ID, LABEL, TEMP, World, target
from silicon import Silicon, agent_module

HOUR_MS, DAYS = 3_600_000, 7
# A week of turns each second would take half a minute: no pin that is read back, and a sensor that is read less often.
MODEL = {"properties": [target(20), {**TEMP, "driver": {**TEMP["driver"], "sampleMilliseconds": 300_000}}, LABEL]}


class Site(World):
    """The world, with what a person at the site could see of it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock_jumped_s = 0
        self.told: list[dict[str, tuple[str, str]]] = []
        """Of every status that was written, each condition's status and when it came to be so."""
        judge = self.api.wrote

        def wrote(before: Any, after: Any) -> None:
            judge(before, after)
            found = after["status"]["conditions"]
            self.told.append({c["type"]: (c["status"], c["lastTransitionTime"]) for c in found})

        self.api.wrote = wrote

    def _wall(self) -> str:
        return f"t{self.now // 1000 + self.clock_jumped_s}"

    def begin(self) -> None:
        """The board is Ready, with the model of this file."""
        self.truth.models[compile_model("greenhouse", MODEL).digest] = MODEL
        self.api.edit("boardmodels", "greenhouse", lambda obj: obj.__setitem__("spec", MODEL))
        spec = {"properties": {"label": "old"}, "settings": {"heartbeatSeconds": 300}}
        self.edit(lambda obj: obj["spec"].update(spec))
        self.silicon.power_on()
        self.wait_for("a Ready board", lambda: not self.difference())
        self.run(HOUR_MS)
        self.told.clear()

    def cluster(self, there: bool) -> None:
        self.api.up = there
        if not there:
            for process in self.bridges:
                process.api_away()

    def restart_bridge(self) -> None:
        """kill -9 and a new process, which does not know of the old one."""
        self.kill(self.bridges[0])
        self.quarrel = False
        self.start_bridge()

    def restart_board(self) -> None:
        self.silicon.power_off()
        self.run(60_000)
        self.silicon.power_on()

    def restart_broker(self) -> None:
        self.hub.restart(self.hub.retained)

    def hours(self, first: int, last: int) -> None:
        """These hours of the week; the sensor has another value in each."""
        for hour in range(first, last):
            self.silicon.adc = 20 + hour
            self.run(HOUR_MS)
            self.hub.history.clear()  # the model broker's own

    def held(self) -> dict[str, int]:
        """How much each part of the site holds that could grow."""
        bridge = self.bridges[0].bridge
        store, leftovers = bridge.store, bridge.engine.registry.leftovers
        return {
            "statuses": store.pending,
            "requests": len(self.bridges[0].requests),
            "finalizers": len(store._finalizers._wishes),
            "events": len(store._notices._waiting) + len(store._notices._series),
            "messages to boards": bridge.session.waiting,
            "timers of boards": self.bridges[0].wakes,
            "timers in all": sum(not handle.cancelled() for handle in self.bridges[0].loop._scheduled),
            "strangers": len(leftovers.mailboxes) + len(leftovers.sessions),
            "messages in the broker": sum(len(c.up) + len(c.down) + len(c.inbox) for c in self.hub.connections),
            "retained": len(self.hub.retained),
            "the board's files": len(self.silicon.flash.files),
            "the board's unacknowledged": len(self.silicon.agent.link.inflight),
        }


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # Each look costs the test time, and site and bridge none: the agent's feeds a watchdog.
    looks = (ModelWatch, "again_s", 300.0), (ModelTransport, "look_s", 30.0), (agent_module, "_TURN_MS", 60_000)
    for whose, name, often in looks:
        monkeypatch.setattr(whose, name, often)
    with Site() as made:
        made.begin()
        yield made


def values(silicon: Silicon) -> dict[str, Any]:
    return {p.name: p.value for p in silicon.twin.props.values()}


def test_the_bridge_lives_through_it(site: Site) -> None:
    """A bridge, a board whose sensor moves each hour, restarts of board and broker, jumps of the clock: nothing is
    written and nothing grows; on return one write brings the last value, and no condition has moved."""
    assert site.object is not None
    site.cluster(there=False)
    held = []
    for day in range(DAYS):
        site.hours(24 * day, 24 * (day + 1))
        held.append(site.held())
        match day:
            case 1:
                site.restart_board()
            case 2:
                site.clock_jumped_s = 86_400
            case 3:
                site.clock_jumped_s = -86_400
            case 4:
                site.restart_broker()
    assert not site.told
    assert held[0]["statuses"] == 1, "all that has happened is one status that waits"
    for later in held[1:]:
        assert {name: n for name, n in later.items() if n > held[0][name] + 2} == {}
    site.cluster(there=True)
    site.run(HOUR_MS)
    assert site.object["status"]["reported"]["temp"] == 20 + 24 * DAYS - 1
    assert len(site.told) == 1, site.told
    assert not site.difference()


def test_the_bridge_is_restarted_in_it(site: Site) -> None:
    """A bridge that starts while the cluster is away, twice, leaves board and mailbox as they are, and the board boots
    and works without it; on return one write brings the last value, and no condition has moved."""
    assert site.object is not None
    before = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in site.object["status"]["conditions"]}
    mailbox = site.hub.retained[topic(BOARD_ID, "d")]
    site.cluster(there=False)
    site.hours(0, 12)
    for part in (1, 2, 3):
        if part < 3:
            site.restart_bridge()
        site.hours(12 * part, 12 * (part + 1))
        site.restart_board()
        site.run(HOUR_MS)
        assert values(site.silicon) == {"target": 20, "temp": 20 + 12 * (part + 1) - 1, "label": "old"}
        assert site.hub.retained[topic(BOARD_ID, "d")] == mailbox
    assert not site.told
    site.cluster(there=True)
    site.run(HOUR_MS)
    assert site.object["status"]["reported"]["temp"] == 20 + 48 - 1
    assert site.told == [before]
    assert not site.difference()


def test_the_cluster_is_edited_in_it(site: Site) -> None:
    """Of the edits that were made where the bridge could not see them the last one counts: it is mailed once, written
    to flash once, and wins over what the board has run and proven meanwhile; a status or two say so."""
    site.cluster(there=False)
    site.hours(0, 12)
    site.edit_property("target", 30)
    site.edit_property("label", "new")
    site.restart_board()
    site.hours(12, 24)
    site.edit_property("target", 31)
    mails, writes = site.truth.mails, len(site.silicon.flash.writes)
    site.cluster(there=True)
    site.run(60_000)
    assert values(site.silicon) == {"target": 31, "temp": 43, "label": "new"}
    assert site.truth.mails == mails + 1
    assert len(site.silicon.flash.writes) <= writes + 2, "as tried, and as proven"
    assert len(site.told) <= 2
    site.run(HOUR_MS)
    assert not site.difference()


def test_the_bridge_is_away_for_longer(site: Site) -> None:
    """A board that nobody has asked for a week, while its connection stood, answers the next bridge at once: its ticks
    have come more than half round since the last time."""
    site.kill(site.bridges[0])
    site.quarrel = False
    site.run(DAYS * 24 * HOUR_MS)
    site.start_bridge()
    site.run(20_000)
    assert not site.difference()
    site.silicon.adc = 99
    site.run(600_000)
    assert site.object is not None
    assert site.object["status"]["reported"]["temp"] == 99
