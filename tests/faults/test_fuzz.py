"""Garbage on every topic, both ways, and a broker that lies: bridge and boards go on, and nothing is disturbed."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_wire.topic import topic
from boards_in_use import Fleet, Life
from broker.access import BRIDGE
from fakes.tcp_proxy import TcpProxy
from garbage import HUGE_BYTES, Garbage
from judge import FULL, Case, MakeFleet
from mail import payloads

# Every seed that ever found something stays here.
SEEDS = (51, 52) if FULL else (51,)
FROM_BOARDS, TO_BOARDS = "srwtal", "dcf"
GROWTH_MB = 60  # some messages of 200 KB at once, twice over, and what an allocator keeps of them


@contextlib.contextmanager
def intruder(fleet: Fleet, user: str) -> Iterator[paho.Client]:
    """A client with somebody else's credential."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"x{uuid.uuid4().hex[:12]}")
    client.username_pw_set(user, fleet.site.broker.users[user])
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", fleet.site.broker.port)
    client.loop_start()
    try:
        assert connected.wait(20)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def memory_mb(fleet: Fleet) -> float:
    """Resident memory of the bridge."""
    status = Path(f"/proc/{fleet.site.bridge.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def undisturbed(fleet: Fleet, pid: int | None, before_mb: float) -> None:
    """The bridge is the same process within its memory and without a bug of ours; no board has rebooted."""
    assert fleet.site.bridge.process.pid == pid, "the bridge did not die"
    assert memory_mb(fleet) < before_mb + GROWTH_MB
    assert "Traceback" not in fleet.site.bridge.log
    with fleet.admin() as admin:
        boots = {name: obj["status"]["board"]["bootCount"] for name, obj in admin.boards().items()}
    assert set(boots.values()) == {1}, boots
    for member in fleet.members:
        assert "Traceback" not in member.board.log.read_text(errors="replace")


@pytest.mark.parametrize("seed", SEEDS)
def test_garbage_on_every_topic(case: Case, make_fleet: MakeFleet, seed: int) -> None:
    """Noise, 200 KB retained, cut, flipped and sealed nonsense on every topic of every board, in both directions."""
    messages = case.count(1500, 250)
    letters = FROM_BOARDS + TO_BOARDS
    case.injected(f"seed {seed}: {messages} messages on {letters}, up to {HUGE_BYTES // 1024} KB, retained")
    # A broker without max_packet_size, as most are.
    fleet = make_fleet(case.count(8, 4), seed, prepare=lambda s: setattr(s.broker, "packet_bytes", 0))
    pid, before_mb = fleet.site.bridge.process.pid, memory_mb(fleet)
    ring = KeyRing(fleet.site.root, bytes(16))
    streams = {m.name: Garbage(seed + n, ring.board(m.board_id)) for n, m in enumerate(fleet.members)}
    with Life(fleet, edits_per_s=10), contextlib.ExitStack() as stack:
        clients = {user: stack.enter_context(intruder(fleet, user)) for user in (BRIDGE, *fleet.site.boards)}
        for number in range(messages):
            member = fleet.members[number % len(fleet.members)]
            stream = streams[member.name]
            if number % 50 == 0:
                mails = payloads(fleet.site)
                with fleet.admin() as admin:
                    objects = admin.boards()
            letter = stream.letter(letters)
            epoch = bytes.fromhex(objects[member.name]["status"]["session"]["epoch"])
            payload = stream.payload(letter, mails.get(topic(member.board_id, "d"), b"?"), epoch)
            user = BRIDGE if letter in TO_BOARDS else member.board_id
            sent = clients[user].publish(topic(member.board_id, letter), payload, qos=1, retain=number % 2 == 0)
            sent.wait_for_publish(20)
            time.sleep(0.01)  # two hundred a second are a flood that leaves room for edits
    undisturbed(fleet, pid, before_mb)
    case.judge(fleet, wait_s=120)
    # What was retained is still there: a bridge that starts now reads all of it first.
    fleet.site.bridge.kill()
    fleet.site.bridge.start()
    case.judge(fleet, wait_s=120)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_broker_that_lies(case: Case, make_fleet: MakeFleet, seed: int) -> None:
    """Packets of the protocol itself are garbled on their way: wrong lengths, types, codes, ids, noise in between."""
    lies = case.count(100, 15)
    with TcpProxy(seed) as proxy:
        fleet = make_fleet(
            case.count(8, 4),
            seed,
            prepare=lambda s: proxy.to(s.broker.port),
            config={"port": proxy.port},
            broker_port=proxy.port,
        )
        pid, before_mb = fleet.site.bridge.process.pid, memory_mb(fleet)
        proxy.garble_chance = 0.05
        until = time.monotonic() + case.count(280, 60)
        with Life(fleet, edits_per_s=10):
            while sum(proxy.lies.values()) < lies and time.monotonic() < until:
                time.sleep(0.1)
        proxy.garble_chance = 0.0
        counts = ", ".join(f"{n} × {kind}" for kind, n in sorted(proxy.lies.items()))
        case.injected(f"seed {seed}: {counts}")
        case.judge(fleet, wait_s=150)
        undisturbed(fleet, pid, before_mb)
        assert sum(proxy.lies.values()) >= lies, counts


def test_garbage_in_a_mailbox(case: Case, make_fleet: MakeFleet) -> None:
    """A mailbox that was overwritten is put right, and what the board refused of it is no reproach to what it runs."""
    case.injected("200 KB, noise and sealed nonsense in each mailbox, and no edit after it")
    fleet = make_fleet(3, SEEDS[0], prepare=lambda s: setattr(s.broker, "packet_bytes", 0))
    ring = KeyRing(fleet.site.root, bytes(16))
    with Life(fleet):
        time.sleep(1)
    assert not (found := fleet.settled()), "\n".join(found)
    with intruder(fleet, BRIDGE) as client:
        for member, body in zip(fleet.members, (bytes(HUGE_BYTES), b"noise", b"\xa1\x00\x00"), strict=True):
            keys = ring.board(member.board_id)
            payload = keys.close("d", body) if len(body) == 3 else body
            client.publish(topic(member.board_id, "d"), payload, qos=1, retain=True).wait_for_publish(20)
    case.judge(fleet)
    fleet.site.bridge.kill()
    fleet.site.bridge.start()
    case.judge(fleet)
