"""The board's half of PROTOCOL.md on real MicroPython and a real broker; the test plays the bridge."""

from __future__ import annotations

import json
from collections.abc import Callable

import cbor2
import pytest
from boardlet_bridge.core.codec import MAX_PAYLOAD_BYTES
from boardlet_bridge.core.model import compile_model
from boardlet_wire.seal import UP_TAG, digest
from bridge_side import MODEL, UID, Peer
from virtualboard import VirtualBoard

MakeBoard = Callable[..., VirtualBoard]


@pytest.fixture
def board(make_board: MakeBoard, peer: Peer) -> VirtualBoard:
    """A board that runs revision 1 of the greenhouse model."""
    made = make_board()
    made.start()
    peer.here()
    peer.desire({0: False, 1: 20.0, 3: "a"})
    peer.here(2)  # section 10: a board that switches its model begins a new epoch
    peer.full(b"fixture!")
    return made


def test_birth_says_everything(make_board: MakeBoard, peer: Peer) -> None:
    """The first publish of a connection names protocol, boot, agent, port, interpreter, limit and safe mode."""
    make_board().start()
    birth = peer.here()
    assert birth[0] == 1
    assert len(birth[2]) == 8
    assert (birth[3], birth[4], birth[5], birth[11], birth[17]) == (1, 1, 1, 1024, False)
    assert all(isinstance(birth[key], str) for key in (6, 7, 8, 10))


def test_blank_board_fetches_its_model(board: VirtualBoard, peer: Peer) -> None:
    """A blank board learns what it is from the desired alone, in chunks it asked for, and says so in its next birth."""
    assert peer.wants >= 1
    assert peer.here()[12] == MODEL.digest
    assert board.pin(2) == 0


def test_full_report_has_every_value(board: VirtualBoard, peer: Peer) -> None:
    """Command 0 is answered with all values, errors, uptime, counters, health and the nonce."""
    full = peer.full(b"everythg")
    assert full[0] is False
    assert full[2] == 0
    assert full[4] is True
    assert full[-3] == {1: 7, 3: 7}, "no app: the properties without a driver have no handler"
    assert full[-2][:2] == [UID, 1]
    assert full[-8] == 0
    assert set(full[-7]) == {0, 1, 2, 3}


def test_the_longest_report_comes_whole(make_board: MakeBoard, peer: Peer) -> None:
    """A board sends in one report what its model allows at the most, and it is no longer than the bridge counts on."""
    row = {"type": "Array", "access": "ReadOnly", "maxItems": 31, "items": {"type": "Bytes", "maxLength": 128}}
    model = compile_model("logs", {"properties": [{"name": f"log{i}", "index": 24 + i, **row} for i in range(2)]})
    board = make_board()
    lines = ["from boardlet import app", *(f"app.set('log{i}', [bytes(128)] * 31)" for i in range(2))]
    (board.flash / "app.py").write_text("\n".join(lines))
    board.start()
    peer.here()
    peer.adopt(model, {})
    full = peer.full()
    assert full[24] == full[25] == [bytes(128)] * 31
    letter, size = max(peer.sizes, key=lambda sent: sent[1])
    assert letter == "r"
    assert model.most_reported_bytes - 100 < size - UP_TAG <= model.most_reported_bytes <= MAX_PAYLOAD_BYTES


def test_sequence_begins_at_zero(board: VirtualBoard, peer: Peer) -> None:
    """Reports of an epoch are numbered from 0 without a gap."""
    board.set_adc(34, 100)
    peer.until(lambda: any(r.get(2) == 50 for r in peer.reports))
    epoch_start = max(i for i, r in enumerate(peer.reports) if r[-1] == 0)
    numbers = [r[-1] for r in peer.reports[epoch_start:]]
    assert numbers == list(range(len(numbers)))


def test_equal_revision_equal_digest_adopts(board: VirtualBoard, peer: Peer) -> None:
    """The same content for a new generation is adopted and answered, without going through flash."""
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (board.flash / "state").iterdir())
    peer.desire({0: False, 1: 20.0, 3: "a"}, revision=1, generation=7)
    peer.until(lambda: any(isinstance(r.get(-2), list) and r[-2][3] == 7 for r in peer.reports))
    assert sorted(
        (p.name, p.stat().st_mtime_ns) for p in (board.flash / "state").iterdir() if p.name[:-1] == "next"
    ) == [row for row in before if row[0][:-1] == "next"]


def test_equal_revision_other_digest_is_a_conflict(board: VirtualBoard, peer: Peer) -> None:
    """The same revision with another content is refused as Conflict, and changes nothing."""
    peer.desire({0: True, 1: 20.0, 3: "a"}, revision=1)
    peer.until(lambda: any(r.get(-6, [0, b"", 0])[2] == 1 for r in peer.reports))
    assert board.pin(2) == 0


def test_lower_revision_is_dropped(board: VirtualBoard, peer: Peer) -> None:
    """A revision below the applied one is dropped and counted: the board never goes backwards."""
    peer.desire({0: True}, revision=5)
    peer.applied(5)
    peer.desire({0: False}, revision=4)
    full = peer.full(b"stale???")
    assert full[-7][3] >= 1
    assert full[0] is True
    assert board.pin(2) == 1


def test_one_bad_value_leaves_the_others(board: VirtualBoard, peer: Peer) -> None:
    """What one property refuses is an error of that property; the others are applied."""
    peer.desire({0: True, 1: 99.0, 3: "too long for it", 77: 1, 2: 5.0})
    peer.applied(2)
    full = peer.full(b"errors??")
    assert full[0] is True
    assert full[-3] == {1: 1, 3: 5, 77: 4, 2: 3}


@pytest.mark.parametrize("broken", [b"\xff" * 30, b"", b"\xa0", cbor2.dumps({0: UID, 1: 9, 2: 1, 3: b"\xff"})])
def test_malformed_desired_is_refused(board: VirtualBoard, peer: Peer, broken: bytes) -> None:
    """A body that is sealed rightly and cannot be understood is refused as Malformed; an empty one changes nothing."""
    payload = peer.keys.close("d", broken) if broken else b""
    peer.publish("d", payload, retain=True)
    if broken:
        peer.until(lambda: any(r.get(-6, [0, b"", 0])[2] == 3 for r in peer.reports))
    assert peer.full(b"alive???")[0] is False


def test_forged_messages_change_nothing(board: VirtualBoard, peer: Peer) -> None:
    """A wrong seal is dropped and counted, on every topic towards the board."""
    for letter in "dcf":
        peer.publish(letter, cbor2.dumps({0: UID, 1: 9, 2: 1, 3: b"\xa0"}) + bytes(16))
    full = peer.full(b"forged??")
    assert full[-7][0] == 3
    assert full[-2][1] == 1


def test_oversize_is_drained_and_told(board: VirtualBoard, peer: Peer) -> None:
    """A retained message of 200 KB is drained without memory, told as TooLarge, and the next desired works."""
    peer.publish("d", bytes(200_000), retain=True)
    peer.until(lambda: any(r.get(-6, [0, b"", 0])[2] == 2 for r in peer.reports))
    peer.desire({0: True})
    peer.applied(2)
    assert board.pin(2) == 1


def test_gone_is_the_will_of_this_epoch(board: VirtualBoard, peer: Peer) -> None:
    """A power cut brings the will of the very connection that was cut."""
    epoch = peer.epoch
    board.kill()
    peer.until(lambda: peer.sessions[-1][1] == 0)
    assert peer.sessions[-1][2] == epoch


def test_introduce_publishes_the_session_again(board: VirtualBoard, peer: Peer) -> None:
    """Command 1 brings the birth again in the same epoch, and the full report after it."""
    births = len(peer.sessions)
    peer.ask(1, b"whoareu?")
    peer.until(lambda: any(r.get(-5) == b"whoareu?" for r in peer.reports))
    assert len(peer.sessions) == births + 1
    assert peer.sessions[-1][2] == peer.sessions[-2][2]


def test_heartbeat(board: VirtualBoard, peer: Peer) -> None:
    """After its heartbeat of silence the board sends sequence, revision and uptime, and nothing else."""
    state = cbor2.dumps({-1: MODEL.digest, 0: True, -3: {0: 1}})
    peer.send("d", {0: UID, 1: 2, 2: 1, 3: state}, retain=True)
    peer.applied(2)
    peer.until(lambda: set(peer.reports[-1]) == {-1, -2, -4})
    assert peer.reports[-1][-2] == 2


def test_desired_survives_without_a_broker(board: VirtualBoard, peer: Peer) -> None:
    """A board that boots without any network runs what is in its flash."""
    peer.desire({0: True})
    peer.applied(2)
    board.kill()
    (board.folder / "pins/pin2").write_text("0")
    board.configure({**_config(board), "port": 1})
    board.start()
    board.wait_until(lambda: board.pin(2) == 1, 20)


def test_two_deaths_while_trying_revert(make_board: MakeBoard, peer: Peer) -> None:
    """A desired that kills the board twice is given up, the last proven one is booted, and that is told."""
    board = make_board(proven_s=2)
    board.start()
    peer.here()
    peer.desire({0: False})
    peer.here(2)
    peer.until(lambda: any(p.name.startswith("good") for p in (board.flash / "state").iterdir()))
    revision = peer.desire({0: True})
    peer.applied(revision)
    for _ in range(2):
        board.kill()
        births = len([s for s in peer.sessions if s[1] == 1])
        board.start()
        peer.here(births + 1)
    full = peer.full(b"reverted")
    assert full[-6] == [revision, digest(cbor2.dumps({-1: MODEL.digest, 0: True})), 5]
    assert full[-2][1] == 1
    assert full[0] is False
    higher = peer.desire({0: True})
    peer.applied(higher)


def test_crash_is_told_once_and_survived(make_board: MakeBoard, peer: Peer) -> None:
    """An agent that dies of an exception boots again, says Crash, and brings the trace."""
    board = make_board()
    (board.flash / "boardlet/net.py").write_text(
        "import os\nclass Net:\n    def __init__(self, cfg):\n        try:\n            os.stat('died')\n"
        "        except OSError:\n            open('died', 'w').close()\n            raise RuntimeError('first boot')\n"
        "    def ready(self, now):\n        return True\n    def down(self):\n        pass\n"
    )
    board.start()
    birth = peer.here()
    assert birth[5] == 6
    assert "RuntimeError: first boot" in birth[16]
    assert birth[4] == 2


def test_four_failed_boots_mean_safe_mode(make_board: MakeBoard, peer: Peer) -> None:
    """An app that kills the board at every boot ends in safe mode: agent and network live, and say so; no pin moves."""
    board = make_board(stable_s=60, proven_s=60)
    (board.flash / "app.py").write_text("import machine\nmachine.reset()\n")
    board.start()
    birth = peer.here()
    assert birth[17] is True
    assert birth[4] == 5
    peer.adopt(MODEL, {0: True, 1: 21.0})
    full = peer.full(b"no pins?")
    assert full[-3] == {0: 9, 1: 9, 2: 9, 4: 9}, "drivers and app are not running, and each property says so"
    assert not [key for key in full if key >= 0]
    assert board.pin(2) is None


def test_app(make_board: MakeBoard, peer: Peer) -> None:
    """A user's app.py handles desired values, reports its own, and a handler that raises fails alone."""
    board = make_board()
    (board.flash / "app.py").write_text(
        "from boardlet import app\n"
        "@app.property('target')\ndef target(value):\n    return value + 1\n"
        "@app.property('label')\ndef label(value):\n    raise ValueError('no')\n"
        "n = 0\n@app.every(0.05)\ndef count():\n    global n\n    n += 1\n    app.set('temp', n)\n"
    )
    board.start()
    peer.here()
    peer.desire({0: True, 1: 21.0, 3: "x"})
    birth = peer.here(2)
    assert birth[13] == digest((board.flash / "app.py").read_bytes())
    full = peer.full(b"app?????")
    assert full[1] == 22
    assert full[-3] == {3: 8}
    assert full[0] is True


def test_a_timer_that_raises(make_board: MakeBoard, peer: Peer) -> None:
    """A timer of app.py that raises is told as its health, once, and that it works again is too."""
    board = make_board()
    (board.flash / "app.py").write_text(
        "import os\nfrom boardlet import app\n@app.every(0.05)\ndef measure():\n    os.stat('sensor')\n"
        "@app.every(0.05)\ndef other():\n    pass\n"
    )
    board.start()
    peer.here()
    peer.desire({0: True})
    peer.here(2)
    assert peer.full(b"no timer")[-8] == 2
    seen = len(peer.reports)
    (board.flash / "sensor").touch()

    def told() -> list[int]:
        return [r[-8] for r in peer.reports[seen:] if -8 in r]

    peer.until(lambda: told() == [0])
    (board.flash / "sensor").unlink()
    peer.until(lambda: told() == [0, 2])
    peer.ask(1)
    assert "OSError" in peer.here(3)[16]


def _config(board: VirtualBoard) -> dict[str, object]:
    found: dict[str, object] = json.loads((board.flash / "config.json").read_text())
    return found
