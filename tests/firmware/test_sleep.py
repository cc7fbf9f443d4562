"""A board that sleeps between its turns (PROTOCOL.md section 10), on real MicroPython and a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable

import cbor2
from boardimage.agent import FIRMWARE
from boardlet_bridge.core.model import compile_model
from bridge_side import MODEL, UID, Peer
from virtualboard import VirtualBoard

MakeBoard = Callable[..., VirtualBoard]
SLEEP_S = 1
# The time rule would never prove anything here, nor call a boot stable: what counts is the round trip.
SLOW = {"proven_s": 600, "stable_s": 600, "awake_s": 4}


def sleepy(peer: Peer, led: bool, seconds: int = SLEEP_S) -> int:
    """Desire that it sleeps between its turns; the revision."""
    peer.revision += 1
    state = {-1: MODEL.digest, 0: led, -3: {2: seconds}}
    peer.send("d", {0: UID, 1: peer.revision, 2: 1, 3: cbor2.dumps(state)}, retain=True)
    return peer.revision


def asleep(peer: Peer) -> int:
    return len([s for s in peer.sessions if s[1] == 2])


def turn(peer: Peer) -> None:
    """Answer the next birth with the question, until the board sleeps."""
    slept = asleep(peer)
    born = len([s for s in peer.sessions if s[1] == 1])
    if not peer.sessions or peer.sessions[-1][1] != 1:
        peer.here(born + 1)
    nonce = b"turn%04d" % slept
    peer.ask(0, nonce)
    peer.until(lambda: asleep(peer) > slept)
    assert any(r.get(-5) == nonce for r in peer.reports)


def state(board: VirtualBoard, name: str) -> list[object] | None:
    """A record of the board's flash."""
    found = [p.read_bytes() for p in (board.flash / "state").iterdir() if p.name[:-1] == name]
    newest = max(found, key=lambda raw: int.from_bytes(raw[4:8], "big"), default=None)
    return cbor2.loads(newest[12:]) if newest else None


def start(make_board: MakeBoard, peer: Peer, **config: object) -> VirtualBoard:
    """A board that has taken its first desired and had its first turn."""
    board = make_board(**SLOW, **config)
    board.start()
    peer.here()
    sleepy(peer, False)
    peer.here(2)  # it begins a new epoch with its model
    turn(peer)
    return board


def test_a_turn(make_board: MakeBoard, peer: Peer) -> None:
    """It wakes, says that it woke, answers, says that it sleeps and for how long, ends in order, and wakes again."""
    start(make_board, peer)
    last = peer.sessions[-1]
    assert (last[1], last[2], last[18]) == (2, peer.epoch, SLEEP_S)
    slept_at = time.monotonic()
    for _ in range(3):
        births = len([s for s in peer.sessions if s[1] == 1])
        birth = peer.here(births + 1)
        assert birth[5] == 4
        assert birth[4] == 1, "waking is no boot"
        assert time.monotonic() - slept_at >= SLEEP_S
        turn(peer)
        slept_at = time.monotonic()
    slept = {s[2] for s in peer.sessions if s[1] == 2}
    assert not [s for s in peer.sessions if s[1] == 0 and s[2] in slept], "no will: they ended in order"


def test_a_slow_sensor_is_waited_for(make_board: MakeBoard, peer: Peer) -> None:
    """A turn lasts until a thermometer has measured, and no longer; an output that nobody has set is not waited for."""
    pins = {"driver": {"type": "Ds18x20", "pins": [4]}}, {"driver": {"type": "PwmOut", "pins": [5]}}
    rows = [
        {"name": "t", "index": 0, "type": "Number", "access": "ReadOnly", **pins[0]},
        {"name": "dim", "index": 1, "type": "Number", "access": "ReadWrite", "minimum": 0, "maximum": 1, **pins[1]},
    ]
    model = compile_model("m", {"properties": rows})
    peer.models[model.digest] = model.encoded
    board = make_board(**{**SLOW, "awake_s": 20})
    board.put("onewire4", "28ff641e0f160354 21.5")
    board.start()
    peer.here()
    peer.revision += 1
    asked = cbor2.dumps({-1: model.digest, -3: {2: SLEEP_S}})
    peer.send("d", {0: UID, 1: peer.revision, 2: 1, 3: asked}, retain=True)
    peer.here(2)
    turn(peer)
    births, reports, began = len([s for s in peer.sessions if s[1] == 1]), len(peer.reports), time.monotonic()
    peer.here(births + 1)
    turn(peer)
    assert [r[0] for r in peer.reports[reports:] if 0 in r][-1] == 21.5
    assert time.monotonic() - began < 15


def test_an_edit_waits_and_is_proven_before_the_next_sleep(make_board: MakeBoard, peer: Peer) -> None:
    """An edit while it sleeps is taken at its next turn and proven by the round trip, long before any time rule."""
    board = start(make_board, peer)
    revision = sleepy(peer, True)
    births = len([s for s in peer.sessions if s[1] == 1])
    peer.here(births + 1)
    turn(peer)
    peer.applied(revision)
    assert board.pin(2) == 1
    good = state(board, "good")
    assert good is not None
    assert good[1] == revision


def test_waking_is_not_a_failed_boot(make_board: MakeBoard, peer: Peer) -> None:
    """Five turns (four failed boots would be safe mode) count no boot, fail none, and write nothing to flash."""
    board = start(make_board, peer)
    turn(peer)
    before = {p.name: p.stat().st_mtime_ns for p in (board.flash / "state").iterdir()}
    for _ in range(5):
        turn(peer)
    birth = peer.here()
    assert (birth[4], birth[17]) == (1, False)
    assert {p.name: p.stat().st_mtime_ns for p in (board.flash / "state").iterdir()} == before


def test_a_port_that_cannot_tell_waking_from_a_reset(make_board: MakeBoard, peer: Peer) -> None:
    """Where the chip says Watchdog at each waking, as RP2's does, the board knows from its flash that it slept."""
    board = make_board(**SLOW)
    (board.flash / "machine.py").write_text(
        f"exec(open({str(FIRMWARE / 'boards/unix/machine.py')!r}).read())\n"
        "del DEEPSLEEP_RESET\n_cause = reset_cause()\ndef reset_cause():\n    return 3 if _cause == 4 else _cause\n"
    )
    board.start()
    peer.here()
    sleepy(peer, False)
    peer.here(2)
    for _ in range(3):
        turn(peer)
    birth = peer.here(5)
    assert (birth[4], birth[5]) == (1, 4)
    turn(peer)
    births = len([s for s in peer.sessions if s[1] == 1])
    peer.here(births + 1)
    board.kill()  # in its turn, so that this is a boot
    board.start()
    birth = peer.here(births + 2)
    assert (birth[4], birth[5]) == (2, 1)


def test_without_a_bridge_it_sleeps_after_its_budget(make_board: MakeBoard, peer: Peer) -> None:
    """A turn that nobody answers ends after its time, in good order; what is being tried is proven in a later one."""
    board = make_board(**SLOW)
    board.start()
    peer.here()
    revision = sleepy(peer, True)
    peer.here(2)
    for n in range(1, 4):
        born = time.monotonic()
        peer.until(lambda n=n: asleep(peer) >= n)  # type: ignore[misc]
        assert 2 < time.monotonic() - born < 10
        assert (state(board, "good"), board.pin(2)) == (None, 1)
        peer.here(2 + n)
    turn(peer)
    good = state(board, "good")
    assert good is not None
    assert good[1] == revision


def test_without_a_network_it_sleeps_too(make_board: MakeBoard, peer: Peer) -> None:
    """A board that finds no broker sleeps after its time; such turns are neither failed boots nor tries."""
    board = start(make_board, peer)
    revision = sleepy(peer, True)
    peer.here(len([s for s in peer.sessions if s[1] == 1]) + 1)
    peer.applied(revision)
    board.kill()  # it tries the new one, and has had no round trip
    assert (state(board, "good") or [0, 0])[1] != revision
    config = board.flash / "config.json"
    there = config.read_text()
    briefly = there.replace('"awake_s": 4', '"awake_s": 2')  # nothing is to happen in that time
    assert briefly != there
    config.write_text(briefly.replace('"port": ', '"port": 1, "was": '))
    board.start()
    slept = board.folder / "pins/sleep"
    for _ in range(3):
        slept.unlink(missing_ok=True)
        peer.until(slept.exists, 40)
    assert board.pin(2) == 1
    config.write_text(there)
    turn(peer)
    assert (state(board, "good") or [0, 0])[1] == revision


def test_deaths_are_still_counted(make_board: MakeBoard, peer: Peer) -> None:
    """A desired that kills a sleeper twice before its first round trip is given up, as on any board."""
    board = start(make_board, peer)
    good = peer.revision
    sleepy(peer, True)
    peer.here(len([s for s in peer.sessions if s[1] == 1]) + 1)
    peer.applied(peer.revision)
    for _ in range(2):
        board.kill()
        births = len([s for s in peer.sessions if s[1] == 1])
        board.start()
        peer.here(births + 1)
    full = peer.full(b"reverted")
    assert full[-6][2] == 5
    assert full[-2][1] == good
