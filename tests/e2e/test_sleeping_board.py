"""A board that sleeps between its turns, with real parts."""

from __future__ import annotations

import json
from typing import Any

from boardlet_cli.site import Site
from greenhouse import LED, LIGHT, Greenhouse, create, greenhouse

SLEEP_S = 2
TURN_S = 30.0  # for a turn and a sleep, on a busy machine
OFFLINE_S = 6  # must be more than a sleep


def sleeper(site: Site, awake_s: int = 20, **settings: int) -> Greenhouse:
    """A greenhouse board that has said that it sleeps. No time rule could prove anything in its short turns."""
    one = greenhouse(site, proven_s=600, stable_s=600, awake_s=awake_s)
    one.synced()
    patch = {"spec": {"settings": {"sleepSeconds": SLEEP_S, **settings}}}
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", json.dumps(patch))
    one.until("Connected", "True", "Asleep")
    return one


def slept_at(one: Greenhouse) -> float:
    """When its board began to sleep, by the wall clock; 0 if it never did."""
    said = one.board.folder / "pins/sleep"
    return said.stat().st_mtime if said.exists() else 0.0


def turn(one: Greenhouse) -> None:
    """Wait until the board has begun to sleep anew."""
    before = slept_at(one)
    one.site.bridge.process.wait_until(lambda: slept_at(one) > before, TURN_S)


def sleep_on(one: Greenhouse) -> None:
    """Wait until the board has begun to sleep, and let it wake at `resume` only: looking may take its time."""
    turn(one)
    one.board.pause()


def written(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


def test_asleep_is_ready_and_an_edit_waits_for_the_next_turn(site: Site) -> None:
    """A sleeping board is Ready; an edit is Pending in its mailbox, and arrives, proven, in the very next turn."""
    one = sleeper(site)
    sleep_on(one)
    assert one.condition("Ready") == ("True", "Synced")
    generation = one.edit(led=True)
    obj = one.until("Synced", "False", "Pending")
    assert one.condition("Connected", obj) == ("True", "Asleep")
    assert obj["status"]["observedGeneration"] == generation - 1
    assert one.board.pin(LED) == 0
    one.board.resume()
    turn(one)
    assert one.board.pin(LED) == 1
    one.synced(generation)
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
    one = sleeper(site, maxOfflineSeconds=OFFLINE_S)
    turn(one)
    one.board.kill()
    obj = one.until("Connected", "False", "Overdue")
    after_s = one.changed_at("Connected", obj) - slept_at(one)
    # The object's times are in whole seconds, and the bridge counts from the board's last word, just before its sleep.
    assert OFFLINE_S - 2 <= after_s < OFFLINE_S + 10
    assert one.condition("Synced")[0] == "Unknown"
    one.board.start()
    one.synced()


def test_a_board_that_is_registered_in_its_sleep(site: Site) -> None:
    """A Board created while its board sleeps is Unknown, Asleep, not NeverSeen, and Ready after one turn."""
    one = sleeper(site, awake_s=4)
    sleep_on(one)  # what it says as it falls asleep is not to be cleared with its object
    one.cluster.run("delete", "board", one.name, "--timeout=30s")
    one.board.resume()
    sleep_on(one)  # it still runs what it was asked last, and says again that it sleeps
    create(one)
    one.until("Connected", "Unknown", "Asleep")
    one.board.resume()
    one.synced()


def test_a_new_bridge_believes_a_sleeper_when_it_wakes(site: Site) -> None:
    """A bridge that starts while the board sleeps claims nothing until its next turn."""
    one = sleeper(site)
    sleep_on(one)
    site.bridge.kill()
    site.bridge.start()
    one.until("Connected", "Unknown", "Asleep")
    assert one.condition("Synced")[0] == "Unknown"
    one.board.resume()
    one.synced()
    one.until("Connected", "True", "Asleep")
