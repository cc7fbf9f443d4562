"""Whoever holds the network or the broker, and no key: nothing that he sends moves a board's pin or takes it back."""

from __future__ import annotations

import os

import cbor2
from arena import Arena, bounded, state
from boardlet_bridge.core.credential import KeyRing
from boardlet_wire.topic import topic
from greenhouse import LED, Greenhouse

WRONG, MALFORMED, OVERSIZE, STALE = range(4)


def test_no_forged_message_moves_a_pin(arena: Arena, victim: Greenhouse) -> None:
    """Noise, other keys' seals, flipped bits, other boards' and own messages reflected: all dropped, all counted."""
    own, before = victim.board_id, state(victim)
    mine = {letter: topic(own, letter) for letter in "srdcf"}
    neighbours = arena.neighbour.board_id
    desired = arena.liar.last(own, mine["d"], up=False)
    command = arena.liar.last(own, mine["c"], up=False)
    stranger = KeyRing(os.urandom(32), bytes(16)).board(own)
    off = cbor2.dumps({0: b"\1\2\3\4\5\6", 1: 900, 2: 9, 3: cbor2.dumps({-1: bytes(8), 0: False})})
    forged = [
        *(("d", os.urandom(size)) for size in (1, 15, 16, 17, 200, 1024)),
        ("d", stranger.close("d", off)),
        ("d", off + bytes(16)),
        ("d", arena.liar.last(neighbours, topic(neighbours, "d"), up=False)),  # of the same site, of another board
        ("d", command),  # of this board, for another topic
        ("c", desired),
        ("f", desired),
        ("d", arena.liar.last(own, mine["r"], up=True)),  # its own words reflected
        ("c", arena.liar.last(own, mine["s"], up=True)),
        *(("d", desired[:cut]) for cut in (1, 16, len(desired) // 2, len(desired) - 1)),
        *(("d", _flipped(desired, bit)) for bit in range(0, 8 * len(desired), 37)),
        *(("c", _flipped(command, bit)) for bit in range(0, 8 * len(command), 37)),
    ]
    with bounded(arena):
        for letter, payload in forged:
            arena.liar.tell(own, mine[letter], payload)
        arena.liar.tell(own, mine["d"], b"", retain=True)  # an empty mailbox is no order
        arena.liar.tell(own, mine["d"], bytes(5000))
        dropped = arena.dropped(victim)
    assert (dropped[WRONG], dropped[OVERSIZE]) == (len(forged), 1)
    victim.until("Ready", "True")
    told = victim.until("MessagesRefused", "True", "WrongSealAtBoard")
    assert told["status"]["droppedMessages"]["byBoard"] == {"wrongSeal": len(forged), "oversize": 1}
    after = state(victim)
    assert (after.pin, after.desired, after.boots) == (before.pin, before.desired, before.boots)


def _flipped(payload: bytes, bit: int) -> bytes:
    made = bytearray(payload)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


def test_a_replayed_desired_takes_no_board_back(arena: Arena, victim: Greenhouse) -> None:
    """An old mailbox is dropped and counted, also by a board that has just booted and finds nothing else there."""
    name = topic(victim.board_id, "d")
    on = arena.liar.last(victim.board_id, name, up=False)
    victim.edit(led=False)
    victim.synced()
    with bounded(arena):
        for _ in range(5):
            arena.liar.tell(victim.board_id, name, on, retain=True)
        assert arena.dropped(victim)[STALE] == 5
        assert victim.board.pin(LED) == 0
        victim.board.kill()
        victim.until("Connected", "False")
        arena.liar.passes = lambda said: said.topic != name or said.up
        sessions = len(arena.liar.all(victim.board_id, topic(victim.board_id, "s"), up=True))
        victim.board.start()
        arena.until(lambda: len(arena.liar.all(victim.board_id, topic(victim.board_id, "s"), up=True)) > sessions)
        assert arena.dropped(victim)[STALE] == 0
        arena.liar.tell(victim.board_id, name, on, retain=True)
        assert arena.dropped(victim)[STALE] == 1
        assert victim.board.pin(LED) == 0
    assert victim.synced()["status"]["reported"]["led"] is False, "its own flash has what it was asked last"


def test_held_back_and_reordered_edits_claim_nothing(arena: Arena, victim: Greenhouse) -> None:
    """Edits that a broker keeps are Pending, not Synced; let out in the wrong order, the newest is what stays."""
    name = topic(victim.board_id, "d")
    held: list[bytes] = []

    def hold(said: object) -> bool:
        if getattr(said, "topic", "") == name and getattr(said, "client", "") == victim.board_id:
            held.append(said.payload)  # type: ignore[attr-defined]
            return False
        return True

    with bounded(arena):
        arena.liar.passes = hold
        victim.edit(led=False)
        victim.until("Synced", "False", "Pending")
        arena.until(lambda: len(held) == 1)
        generation = victim.edit(led=True, nonsense=1)
        arena.until(lambda: len(held) == 2)
        obj = victim.object
        assert obj["status"]["observedGeneration"] < generation
        assert victim.condition("Ready", obj)[0] == "False"
        assert victim.board.pin(LED) == 1
        arena.liar.passes = lambda said: True
        for payload in reversed(held):
            arena.liar.tell(victim.board_id, name, payload)
        assert arena.dropped(victim)[STALE] == 1
        victim.until("Synced", "False", "PropertyErrors")
        assert victim.board.pin(LED) == 1


def test_replayed_commands_cost_a_report_a_second(arena: Arena, victim: Greenhouse) -> None:
    """A recorded question, replayed without end, is answered once a second at most, and proves nothing."""
    own = victim.board_id
    question = arena.liar.last(own, topic(own, "c"), up=False)
    before, said = state(victim), len(arena.liar.all(own, topic(own, "r"), up=True))
    with bounded(arena):
        for _ in range(300):
            arena.liar.tell(own, topic(own, "c"), question)
        assert arena.dropped(victim)[WRONG] == 0
    assert len(arena.liar.all(own, topic(own, "r"), up=True)) - said <= 6
    assert state(victim) == before
