"""A board that sleeps between its turns, with real parts."""

from __future__ import annotations

import json
import time
from typing import Any

from boardlet_cli.site import Site
from greenhouse import LED, LIGHT, Greenhouse, create, greenhouse

SLEEP_S = 4


def sleeper(site: Site, awake_s: int = 20, **settings: int) -> Greenhouse:
    """A greenhouse board that has said that it sleeps. No time rule could prove anything in its short turns."""
    one = greenhouse(site, proven_s=600, stable_s=600, awake_s=awake_s)
    one.synced()
    patch = {"spec": {"settings": {"sleepSeconds": SLEEP_S, **settings}}}
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", json.dumps(patch))
    one.until("Connected", "True", "Asleep")
    return one


def turn(one: Greenhouse) -> None:
    """Wait until the board has begun to sleep anew."""

    def slept_at() -> int:
        said = one.board.folder / "pins/sleep"
        return said.stat().st_mtime_ns if said.exists() else 0

    before = slept_at()
    one.site.bridge.process.wait_until(lambda: slept_at() > before, 3 * SLEEP_S)


def written(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


def test_asleep_is_ready_and_an_edit_waits_for_the_next_turn(site: Site) -> None:
    """A sleeping board is Ready; an edit is Pending in its mailbox, and arrives, proven, in the very next turn."""
    one = sleeper(site)
    slept_at = time.monotonic()
    assert one.condition("Ready") == ("True", "Synced")
    generation = one.edit(led=True)
    obj = one.until("Synced", "False", "Pending")
    assert one.condition("Connected", obj) == ("True", "Asleep")
    assert obj["status"]["observedGeneration"] == generation - 1
    assert one.board.pin(LED) == 0
    one.synced(generation)
    assert time.monotonic() - slept_at < 2 * SLEEP_S + 2
    assert one.board.pin(LED) == 1
    obj = one.until("Connected", "True", "Asleep")
    assert obj["status"]["board"]["bootCount"] == 1
    assert list((one.board.flash / "state").glob("good?")), "proven before it slept"


def test_turns_without_news_are_not_written(site: Site) -> None:
    """Three turns in which nothing changed leave the object alone; a new value is in it after the next turn."""
    one = sleeper(site)
    turn(one)
    before = written(one.object)
    turns = site.bridge.metric('boardlet_status_writes_total{outcome="written"}')
    for _ in range(3):
        turn(one)
    assert written(one.object) == before
    assert site.bridge.metric('boardlet_status_writes_total{outcome="written"}') == turns
    one.board.set_adc(LIGHT, 840)
    obj = one.reported(light=420)
    assert one.condition("Connected", obj)[0] == "True"


def test_a_sleeper_that_does_not_wake_is_overdue(site: Site) -> None:
    """A board whose battery is empty is Asleep for maxOfflineSeconds, then Overdue, and right again later."""
    one = sleeper(site, maxOfflineSeconds=6)
    one.board.kill()
    killed_at = time.monotonic()
    one.until("Connected", "False", "Overdue")
    assert 1 < time.monotonic() - killed_at < 6 + 2
    assert one.condition("Synced")[0] == "Unknown"
    one.board.start()
    one.synced()


def test_a_board_that_is_registered_in_its_sleep(site: Site) -> None:
    """A Board created while its board sleeps is Unknown, Asleep, not NeverSeen, and Ready after one turn."""
    one = sleeper(site, awake_s=4)
    one.cluster.run("delete", "board", one.name, "--timeout=30s")
    turn(one)  # it still runs what it was asked last, and says again that it sleeps
    create(one)
    one.until("Connected", "Unknown", "Asleep", wait_s=SLEEP_S)
    one.synced()


def test_a_new_bridge_believes_a_sleeper_when_it_wakes(site: Site) -> None:
    """A bridge that starts while the board sleeps claims nothing until its next turn."""
    one = sleeper(site)
    site.bridge.kill()
    site.bridge.start()
    one.until("Connected", "Unknown", "Asleep")
    assert one.condition("Synced")[0] == "Unknown"
    one.synced()
    one.until("Connected", "True", "Asleep")
