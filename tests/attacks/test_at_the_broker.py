"""At the broker's door, and behind it with one board's credential: others are not reached, and the fleet goes on."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from arena import Arena, bounded, state, thief
from boardlet_wire.names import SESSION
from boardlet_wire.topic import topic
from greenhouse import LED, Greenhouse

LETTERS = "srwtal"
WRONG_PASSWORDS = 1000
SLOW = 400  # connections that never say who they are
BROKER_GROWTH_MB = 20.0
BROKER_LOG_BYTES = 250  # a wrong password


def test_a_second_client_under_a_boards_name_takes_nothing_over(arena: Arena, victim: Greenhouse) -> None:
    """A thief of the credential can throw the board off and is thrown off by it; pin and values stay the board's."""
    pin, reported = victim.board.pin(LED), victim.object["status"]["reported"]
    name = topic(victim.board_id, "r")

    def counted() -> float:
        return arena.counted("wrong_seal") + arena.counted("unknown_epoch")

    with bounded(arena):
        for _ in range(3):
            before = counted()
            with thief(arena, victim.board_id, victim.board_id) as client:
                client.publish(name, b"\xa1\x01\x00" + bytes(8), qos=1)
                client.publish(topic(victim.board_id, "d"), b"\xa0" + bytes(16), qos=1, retain=True)
                arena.until(lambda seen=before: counted() > seen)
                assert victim.board.pin(LED) == pin
                assert victim.object["status"]["reported"] == reported
        victim.synced(wait_s=90)
    assert victim.condition("MessagesRefused") == ("True", "WrongSeal")
    assert (victim.board.pin(LED), victim.object["status"]["reported"]) == (pin, reported)


def test_one_boards_credential_throws_no_other_board_off(arena: Arena) -> None:
    """Another board's credential with this one's client id ends no connection of this one's, where boards log in."""
    if arena.site.broker.programs.name != "mosquitto":
        pytest.skip("mosquitto: mochi-mqtt has no such setting")
    board_port = arena.site.broker.board_port
    arena.site.broker.add_user("attacker", "a board's password")
    one = arena.join_at(board_port)
    try:
        before, sessions = state(one), one.object["status"].get("session")
        with bounded(arena):
            for _ in range(3):
                with thief(arena, "attacker", one.board_id, board_port):
                    one.edit(led=not one.board.pin(LED))
                    one.synced()
        assert one.object["status"].get("session") == sessions, "it is the same session"
        assert state(one).boots == before.boots
    finally:
        arena.leave(one)


def test_a_subscription_to_everything_yields_what_is_ones_own(arena: Arena, victim: Greenhouse) -> None:
    """One board's credential, subscribed to every wildcard there is, hears nothing of another board or the bridge."""
    heard: list[str] = []
    own = victim.board_id
    with thief(arena, own) as client, bounded(arena):  # whose end is an edit of the neighbour
        client.on_message = lambda _c, _u, message: heard.append(message.topic)
        subscribed: list[int] = []
        client.on_subscribe = lambda *_: subscribed.append(1)
        other = arena.neighbour.board_id
        wildcards = ["#", "b/#", "b/+/+/d", "+/+/+/+", "$SYS/#", f"b/+/{other}/+", topic(other, "d"), topic(other, "s")]
        for wildcard in wildcards:
            client.subscribe(wildcard, 1)
        arena.until(lambda: len(subscribed) == len(wildcards))
        victim.edit(led=False)
        victim.synced()
        arena.until(lambda: topic(own, "d") in heard)
    assert heard
    assert {name.split("/")[2] for name in heard} == {own}
    assert {name[-1] for name in heard} <= set("dcfi")


def test_a_boards_credential_writes_no_other_topic(arena: Arena, victim: Greenhouse) -> None:
    """What it publishes on the victim's topics, on any mailbox, or on the bridge's own topic, arrives nowhere."""
    before = state(victim)
    refused = {cause: arena.counted(cause) for cause in ("wrong_seal", "unknown_topic", "strange_topic")}
    with bounded(arena), thief(arena, arena.neighbour.board_id) as client:
        for letter in LETTERS + "dcfi":
            client.publish(topic(victim.board_id, letter), b"forged" * 4, qos=1, retain=True).wait_for_publish(10)
        client.publish("b/~/boardlet-bridge-00000000/d", b"?", qos=1).wait_for_publish(10)
        assert arena.dropped(victim) == [0, 0, 0, 0]
    assert {cause: arena.counted(cause) for cause in refused} == refused
    assert state(victim) == before
    assert arena.site.bridge.metric('boardlet_broker_warnings_total{reason="SecondBridge"}') == 0


def test_retained_poison_on_every_letter_does_not_outlive_a_restart(arena: Arena, victim: Greenhouse) -> None:
    """Poison retained with a stolen credential is refused, also by a bridge that starts and reads it; all are Ready."""
    bridge = arena.site.bridge
    with thief(arena, victim.board_id) as client:
        for letter in LETTERS:
            poison = b"\xbf" * 200 + os.urandom(8000)
            client.publish(topic(victim.board_id, letter), poison, qos=1, retain=True).wait_for_publish(10)
        victim.until("MessagesRefused", "True", "WrongSeal")
        assert victim.condition("Ready") == ("True", "Synced")
        bridge.kill()
        bridge.start()
        victim.synced()
        arena.neighbour.synced()
        assert arena.counted("retained") == len(LETTERS) - len(SESSION)
        generation = victim.edit(led=False)
        victim.synced(generation)
        assert victim.board.pin(LED) == 0
        assert not arena.neighbour.condition("MessagesRefused")[0]
        assert "Traceback" not in bridge.log
        for letter in LETTERS:
            client.publish(topic(victim.board_id, letter), b"", qos=1, retain=True).wait_for_publish(10)


def test_a_thousand_wrong_passwords_let_nobody_in_and_keep_nobody_out(arena: Arena, victim: Greenhouse) -> None:
    """Guesses for the victim's, the neighbour's and the bridge's login are all refused, while edits arrive in time."""
    users = (victim.board_id, arena.neighbour.board_id, "boardlet-bridge", "nobody00")
    broker = arena.site.broker
    before, log = state(victim), _log_bytes(arena)
    with bounded(arena), _broker_memory(arena):
        codes = [_login(broker.port, users[n % 4], os.urandom(16).hex()) for n in range(WRONG_PASSWORDS // 2)]
        began = time.monotonic()
        victim.edit(led=False)
        victim.synced()
        assert time.monotonic() - began < 10
        codes += [_login(broker.board_port, users[n % 4], "") for n in range(WRONG_PASSWORDS // 2)]
    assert set(codes) <= {4, 5, None}, "refused, or closed without a word"
    assert len(codes) == WRONG_PASSWORDS
    assert state(victim).boots == before.boots
    assert _log_bytes(arena) - log < WRONG_PASSWORDS * BROKER_LOG_BYTES


def test_clients_that_never_finish_keep_nobody_out(arena: Arena, victim: Greenhouse) -> None:
    """Hundreds of connections that drip half a CONNECT, or one announced as 256 MB: boards log in, edits arrive."""
    starts = (b"", b"\x10", b"\x10\xff\xff\xff\x7f", b"\x10\x50\x00\x04MQTT\x04\xc2\x00\x3c\x00\x10")
    with bounded(arena), _broker_memory(arena), ExitStack() as stack:
        slow = [stack.enter_context(_dial(arena.site.broker.port)) for _ in range(SLOW)]
        for n, connection in enumerate(slow):
            connection.sendall(starts[n % len(starts)])
        for drip in range(5):
            for connection in slow[2::4]:
                with suppress(OSError):  # the broker has had enough of it, which is as good
                    connection.sendall(b"x")
            victim.edit(led=drip % 2 == 0)
            victim.synced()
        victim.board.kill()
        victim.board.start()
        victim.synced()


def test_the_bridges_health_answers_beside_clients_that_never_finish(arena: Arena) -> None:
    """Two hundred half requests to the health port delay neither /livez nor a board."""
    with bounded(arena), ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(_dial(arena.site.bridge.port)).sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        began = time.monotonic()
        assert "true" in arena.site.bridge.http("/livez")
        assert time.monotonic() - began < 3


@contextmanager
def _dial(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def _login(port: int, user: str, password: str) -> int | None:
    # The code of the CONNACK, None where the broker closes.
    body = b"\x00\x04MQTT\x04\xc2\x00\x3c"
    for part in (f"guess{os.getpid()}", user, password):
        body += struct.pack(">H", len(part)) + part.encode()
    with _dial(port) as connection:
        connection.sendall(bytes([0x10, len(body)]) + body)
        answer = connection.recv(4)
    return answer[3] if len(answer) == 4 else None


def _log_bytes(arena: Arena) -> int:
    return arena.site.broker.process.log.stat().st_size


@contextmanager
def _broker_memory(arena: Arena) -> Iterator[None]:
    path = Path(f"/proc/{arena.site.broker.process.pid}/status")

    def resident_mb() -> float:
        return int(path.read_text().split("VmRSS:")[1].split()[0]) / 1024

    before = resident_mb()
    yield
    assert resident_mb() < before + BROKER_GROWTH_MB
