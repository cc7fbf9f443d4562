"""What is said to the bridge in a board's name: by a thief of its credential, of its key, or by the broker itself."""

from __future__ import annotations

import json
import os
import time

import cbor2
import pytest
from arena import Arena, bounded, patch, state, thief
from boardlet_wire import seal
from boardlet_wire.names import EPOCH_SEALED
from boardlet_wire.topic import topic
from fakes.lying_broker import BRIDGE, Said
from greenhouse import DOOR, LED, LIGHT, Greenhouse

SEND = 300  # forgeries of one attack


def sealed(arena: Arena, one: Greenhouse, letter: str, body: bytes, epoch: bytes | None = None) -> bytes:
    """A body as the board itself would seal it."""
    key = arena.keys(one).up
    context = (arena.epoch(one) if epoch is None else epoch) if letter in EPOCH_SEALED else b""
    return body + seal.tag(key, topic(one.board_id, letter), context, body, seal.UP_TAG)


def test_forgeries_in_a_boards_name_are_counted_and_shown(arena: Arena, victim: Greenhouse) -> None:
    """A stolen credential without a key: each message is counted, the Board says so, and stays what it was."""
    before, counted = state(victim), arena.counted("wrong_seal")
    real = arena.liar.last(victim.board_id, topic(victim.board_id, "r"), up=True)
    mailbox = arena.liar.last(victim.board_id, topic(victim.board_id, "d"), up=False)
    with bounded(arena):
        with thief(arena, victim.board_id) as client:
            for n in range(SEND):
                payload = (os.urandom(1 + n), real[:-1] + bytes([real[-1] ^ 1]), real[: n % len(real)] or b"?", mailbox)
                client.publish(topic(victim.board_id, "sr"[n % 2]), payload[n % 4], qos=1).wait_for_publish(10)
        arena.until(lambda: arena.counted("wrong_seal") >= counted + SEND)
    assert victim.until("MessagesRefused", "True", "WrongSeal")
    assert state(victim) == before


def test_replayed_reports_are_no_news(arena: Arena, victim: Greenhouse) -> None:
    """Yesterday's reading, replayed, does not become today's; each replay is counted."""
    name = topic(victim.board_id, "r")
    victim.board.set_adc(LIGHT, 500)
    victim.reported(light=250)
    victim.board.set_adc(LIGHT, 840)
    victim.reported(light=420)
    recorded = arena.liar.all(victim.board_id, name, up=True)
    before, counted = state(victim), arena.counted("duplicate")
    with bounded(arena):
        for n in range(SEND):
            arena.liar.tell(BRIDGE, name, recorded[n % len(recorded)])
        arena.until(lambda: arena.counted("duplicate") >= counted + SEND)
    assert state(victim) == before


def test_replayed_births_and_wills_do_not_end_a_session(arena: Arena, victim: Greenhouse) -> None:
    """The birth of an earlier session makes the board Unknown until it has spoken for itself; its old will nothing."""
    name = topic(victim.board_id, "s")
    victim.board.kill()
    victim.until("Connected", "False", "Gone")
    victim.board.start()
    victim.synced()
    session = arena.liar.all(BRIDGE, name, up=False)
    births = [raw for raw in session if _state(arena, victim, raw) == 1]
    will = next(raw for raw in session if _state(arena, victim, raw) == 0)
    stale, before = arena.counted("stale_will"), state(victim)
    with bounded(arena):
        for _ in range(20):
            arena.liar.tell(BRIDGE, name, will)
        arena.until(lambda: arena.counted("stale_will") >= stale + 20)
        assert state(victim) == before
        arena.liar.tell(BRIDGE, name, births[0])
        victim.until("Connected", "Unknown", "Asking")
        assert victim.condition("Synced")[0] == "Unknown", "nothing is claimed meanwhile"
        victim.board.set_adc(LIGHT, 600)
        obj = victim.reported(light=300)
        victim.until("Ready", "True")
    assert obj["status"]["board"]["bootCount"] == before.boots


def _state(arena: Arena, one: Greenhouse, raw: bytes) -> int:
    body = arena.keys(one).open("s", raw, b"")
    return int(cbor2.loads(body)[1]) if body is not None else -1


def test_another_boards_words_are_not_this_ones(arena: Arena, victim: Greenhouse) -> None:
    """What the neighbour said and sealed, on the victim's topics, is a wrong seal."""
    own, other = victim.board_id, arena.neighbour.board_id
    before, counted = state(victim), arena.counted("wrong_seal")
    with bounded(arena):
        for letter in "sr":
            arena.liar.tell(BRIDGE, topic(own, letter), arena.liar.last(other, topic(other, letter), up=True))
        arena.until(lambda: arena.counted("wrong_seal") == counted + 2)
    assert state(victim) == before


def test_reports_out_of_order_end_in_the_truth(arena: Arena, victim: Greenhouse) -> None:
    """A report that is kept and comes after its successor changes nothing: the bridge has asked for everything."""
    name = topic(victim.board_id, "r")
    held: list[bytes] = []

    def first(said: Said) -> bool:
        if said.topic == name and not said.up and not held:
            held.append(said.payload)
            return False
        return True

    gaps, duplicates = arena.counted("gap"), arena.counted("duplicate")
    with bounded(arena):
        arena.liar.passes = first
        victim.board.set_adc(LIGHT, 700)
        arena.until(lambda: held)
        victim.board.set_pin(DOOR, 0)
        victim.reported(light=350, door=True)
        arena.liar.tell(BRIDGE, name, held[0])
        arena.until(lambda: arena.counted("duplicate") > duplicates)
    assert arena.counted("gap") > gaps
    assert victim.until("Ready", "True")["status"]["reported"]["light"] == 350


def test_a_broker_that_acknowledges_and_drops_gets_no_synced(arena: Arena, victim: Greenhouse) -> None:
    """A mailbox that the broker took and lost is Pending for as long as it does so, and arrives when it does not."""
    name = topic(victim.board_id, "d")
    lost: list[bytes] = []

    def drop(said: Said) -> bool:
        if said.topic == name and said.up:
            lost.append(said.payload)
            return False
        return True

    with bounded(arena):
        arena.liar.passes = drop
        generation = victim.edit(led=False)
        victim.until("Synced", "False", "Pending")
        arena.until(lambda: len(lost) >= 2)  # it was not read back, so it was published again
        assert victim.board.pin(LED) == 1
        assert victim.object["status"]["observedGeneration"] < generation
        arena.liar.passes = lambda said: True
        victim.synced(generation)
    assert victim.board.pin(LED) == 0


def test_a_broker_that_plays_a_dead_board_is_found_out(arena: Arena, victim: Greenhouse) -> None:
    """The will kept, everything that it ever said replayed, answers too: it is Silent at its deadline all the same."""
    own, heartbeat_s = victim.board_id, 3
    patch(victim, {"settings": {"heartbeatSeconds": heartbeat_s}})
    victim.synced()
    recorded = arena.liar.all(own, topic(own, "r"), up=True)
    birth = arena.liar.last(own, topic(own, "s"), up=True)
    arena.liar.passes = lambda said: not said.topic.startswith(topic(own, ""))
    victim.board.kill()
    died, boots = time.monotonic(), victim.object["status"]["board"]["bootCount"]
    with bounded(arena):
        while victim.condition("Connected")[0] == "True":
            assert time.monotonic() < died + 1.5 * heartbeat_s + 5, "it is played for too long"
            arena.liar.tell(BRIDGE, topic(own, "s"), birth, retain=True)
            for payload in recorded:
                arena.liar.tell(BRIDGE, topic(own, "r"), payload)
        victim.until("Connected", "False", "Silent")
        assert victim.condition("Synced")[0] == "Unknown"
        # A bridge that has just started has the broker's word and nothing else.
    arena.liar.passes = lambda said: True
    victim.board.start()
    obj = victim.synced()
    assert obj["status"]["board"]["bootCount"] == boots + 1


BOMBS = {
    "depth": b"\x81" * 4000 + b"\x00",
    "maps": b"\xa1\x00" * 2000 + b"\x00",
    "a length of 2^63": b"\x5b\x7f" + b"\xff" * 7,
    "an array of 2^32": b"\x9a\xff\xff\xff\xff\x00",
    "a map of 2^32": b"\xba\xff\xff\xff\xff\x00\x00",
    "endless": b"\xbf" + b"\x00\x01" * 1000,
    "shared": b"\xa1\x02\xd8\x1c\x82" + b"\xd8\x1d\x00" * 2,
    "a number of 4 KB": b"\xa1\x20\xc2\x59\x10\x00" + b"\xff" * 4096,
    "8 KB of empty arrays": b"\xa1\x02\x99\x1f\x00" + b"\x80" * 0x1F00,
    "no map": b"\x00",
    "cut": b"\xa3\x20\x00\x21",
}


@pytest.mark.parametrize("letter", "srw")
def test_bombs_with_the_boards_own_seal_hit_that_board_alone(arena: Arena, victim: Greenhouse, letter: str) -> None:
    """A stolen board seals what it likes: each bomb is counted and told on its Board, and costs nobody else a thing."""
    before, counted = state(victim), arena.counted("malformed")
    with bounded(arena):
        for _ in range(10):
            for body in BOMBS.values():
                arena.liar.tell(BRIDGE, topic(victim.board_id, letter), sealed(arena, victim, letter, body))
        arena.until(lambda: arena.counted("malformed") >= counted + 10 * len(BOMBS))
    assert victim.until("MessagesRefused", "True", "Malformed")
    assert state(victim) == before


def test_a_reading_beyond_64_bits_can_be_stored(arena: Arena, victim: Greenhouse) -> None:
    """The largest single-precision number reaches the status of a real API server, and the next one too."""
    epoch, name = arena.epoch(victim), topic(victim.board_id, "r")
    sequence = cbor2.loads(arena.liar.last(victim.board_id, name, up=True)[: -seal.UP_TAG])[-1] + 1
    with bounded(arena):
        huge = cbor2.dumps({-1: sequence, 1: 3.4028234663852886e38})
        arena.liar.tell(BRIDGE, name, sealed(arena, victim, "r", huge, epoch))
        victim.cluster.until("board", victim.name, lambda o: o["status"]["reported"]["light"] > 3e38, 20)
    assert arena.site.bridge.metric('boardlet_status_writes_total{outcome="rejected"}') == 0


def test_a_claim_of_another_tenant_gets_nothing(arena: Arena, victim: Greenhouse) -> None:
    """A Board in another namespace with a board's id reads nothing of it and moves nothing; its owner's stays Ready."""
    before = state(victim)
    claim = {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "Board",
        "metadata": {"name": "mine"},
        "spec": {
            "boardID": victim.board_id,
            "modelRef": {"name": "greenhouse"},
            "properties": {"led": False},
            "settings": {"sleepSeconds": 3600},
        },
    }
    with bounded(arena):
        arena.tenant.run("create", "-f", "-", stdin=json.dumps(claim))
        obj = arena.tenant.until("board", "mine", _duplicate, 20)
        assert not obj["status"].get("reported")
        assert {c["status"] for c in obj["status"]["conditions"] if c["type"] in ("Ready", "Synced")} == {"Unknown"}
        assert state(victim) == before
        arena.tenant.run("patch", "board", "mine", "--type=merge", "-p", '{"spec":{"properties":{"led":true}}}')
        arena.tenant.run("delete", "board", "mine", "--timeout=20s")
        assert arena.dropped(victim)[:2] == [0, 0], "nothing was even sent"
        assert state(victim) == before


def _duplicate(obj: dict[str, object]) -> bool:
    status = obj.get("status") or {}
    return any(c["reason"] == "DuplicateBoardID" for c in status.get("conditions", []))  # type: ignore[attr-defined]
