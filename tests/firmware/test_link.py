"""The board's link against a broker that misbehaves: cut packets, silence, oversize, garbage; it always comes back."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import pytest
from boardimage import simple
from boardlet_bridge.core.credential import KeyRing
from boardlet_cli.cluster import ROOT as PROJECT
from boardlet_wire.keys import board_key
from boardlet_wire.topic import topic
from bridge_side import BOARD_ID, MODEL, ROOT, UID
from fakes.packet import packet as encoded
from provision.process import free_port
from virtualboard import VirtualBoard, interpreter

CONNACK = b"\x20\x02\x00\x00"
KEYS = KeyRing(ROOT, bytes(16)).board(BOARD_ID)


class BadBroker:
    """A TCP server that plays one script per connection, and says when a board has connected."""

    def __init__(self, script: Callable[[socket.socket, int], None]) -> None:
        self.port = free_port()
        self.connections = 0
        self.changed = threading.Condition()
        self._script = script
        self._server = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                number = self.connections
                with contextlib.suppress(OSError):  # the board went first
                    self._script(connection, number)
            with self.changed:
                self.connections += 1
                self.changed.notify_all()

    def until(self, count: int, wait_s: float) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.connections >= count, wait_s), self.connections

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., tuple[BadBroker, VirtualBoard]]]:
    made: list[tuple[BadBroker, VirtualBoard]] = []

    def start(script: Callable[[socket.socket, int], None]) -> tuple[BadBroker, VirtualBoard]:
        broker = BadBroker(script)
        key = {"id": BOARD_ID, "key": _key(), "host": "127.0.0.1", "port": broker.port}
        board = VirtualBoard(tmp_path / f"board{len(made)}", key)
        made.append((broker, board))
        board.start()
        return broker, board

    yield start
    for broker, board in made:
        board.kill()
        broker.close()
        print(board.log.read_text(errors="replace")[-2000:])


def _key() -> str:
    return board_key(ROOT, BOARD_ID, 1).hex()


def packet(connection: socket.socket) -> tuple[int, bytes]:
    """One MQTT packet from the board: its first byte and its body."""
    kind = _exactly(connection, 1)[0]
    size = shift = 0
    while True:
        byte = _exactly(connection, 1)[0]
        size |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return kind, _exactly(connection, size)
        shift += 7


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


def greet(connection: socket.socket) -> None:
    """CONNECT, SUBSCRIBE and birth, acknowledged as a broker does."""
    connection.settimeout(20)
    assert packet(connection)[0] == 0x10
    connection.sendall(CONNACK)
    acknowledged = 0
    while acknowledged < 2:
        kind, body = packet(connection)
        if kind & 0xF0 == 0x80:
            connection.sendall(b"\x90\x05" + body[:2] + b"\x01\x01\x01")
            acknowledged += 1
        elif kind & 0xF0 == 0x30:
            connection.sendall(b"\x40\x02" + _id(body))
            acknowledged += 1


def _id(body: bytes) -> bytes:
    length = struct.unpack(">H", body[:2])[0]
    return body[2 + length : 4 + length]


def publish(letter: str, payload: bytes, number: int = 7) -> bytes:
    """A QoS 1 PUBLISH to the board."""
    name = topic(BOARD_ID, letter).encode()
    return encoded(0x32, struct.pack(">H", len(name)) + name + struct.pack(">H", number) + payload)


def desired(led: bool, revision: int) -> bytes:
    state = cbor2.dumps({-1: MODEL.digest, 0: led})
    return publish("d", KEYS.close("d", cbor2.dumps({0: UID, 1: revision, 2: 1, 3: state})))


def test_a_packet_in_single_bytes(play: Callable[..., tuple[BadBroker, VirtualBoard]]) -> None:
    """A packet that comes byte by byte is put together, and acknowledged once."""
    acknowledged = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        greet(connection)
        for byte in desired(True, 1):
            connection.sendall(bytes([byte]))
        while packet(connection) != (0x40, b"\x00\x07"):
            pass
        acknowledged.set()

    play(script)
    assert acknowledged.wait(30)


def test_cut_at_every_byte(play: Callable[..., tuple[BadBroker, VirtualBoard]]) -> None:
    """A connection cut after any byte of a packet is closed and opened again; nothing hangs, nothing crashes."""
    whole = desired(True, 1)
    cuts = [*range(1, 12), len(whole) // 2, len(whole) - 1]

    def script(connection: socket.socket, number: int) -> None:
        greet(connection)
        connection.sendall(whole[: cuts[number % len(cuts)]])

    broker, board = play(script)
    broker.until(5, 120)
    assert "Traceback" not in board.log.read_text(errors="replace")
    assert board.running


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x20\x02\x00\x05",
        b"\x20\x00",
        b"\xff" * 64,
        b"\x30\xff\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x30\x01\x00",
    ],
)
def test_rubbish_instead_of_a_connack(play: Callable[..., tuple[BadBroker, VirtualBoard]], rubbish: bytes) -> None:
    """Whatever a peer answers, the board closes, waits and tries again, and does not reboot for it."""

    def script(connection: socket.socket, number: int) -> None:
        connection.settimeout(5)
        packet(connection)
        connection.sendall(rubbish)

    broker, board = play(script)
    broker.until(2, 60)
    assert "Traceback" not in board.log.read_text(errors="replace")


def test_what_is_acknowledged_goes_with_what_is_said_to_it(play: Callable[..., tuple[BadBroker, VirtualBoard]]) -> None:
    """A message and the board's words to it cost one packet of the network; a message without words does not wait."""
    heard: list[bytes] = []
    done = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        greet(connection)
        for message in (desired(True, 1), publish("c", b"?", 8)):  # its model is unknown; and what carries no seal
            connection.sendall(message)
            heard.append(connection.recv(4096))
        done.set()

    play(script)
    assert done.wait(30)
    acknowledged, said = heard[0][:4], heard[0][4:]
    assert acknowledged == b"\x40\x02\x00\x07"
    assert said[4 : 4 + 15] == topic(BOARD_ID, "w").encode()
    assert heard[1] == b"\x40\x02\x00\x08"


def test_a_topic_longer_than_the_packet(play: Callable[..., tuple[BadBroker, VirtualBoard]]) -> None:
    """A PUBLISH that lies about its topic's length is dropped; the next packet is understood."""
    understood = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        greet(connection)
        connection.sendall(b"\x30\x05\xff\xffabc" + desired(True, 1))
        while packet(connection) != (0x40, b"\x00\x07"):
            pass
        understood.set()

    play(script)
    assert understood.wait(30)


def test_ids_wrap(tmp_path: Path) -> None:
    """Packet ids run from 1 to 65,535 and begin again: a board that published that often goes on."""
    (tmp_path / "t.py").write_text(
        "from boardlet.link import Link\n"
        "link = Link({'id': 'x', 'host': 'x', 'user': 'x', 'password': 'x'}, 'b/00/x/', 64)\n"
        "seen = set()\n"
        "for n in range(65535):\n"
        "    raw = link._id(0); link.inflight.clear(); seen.add(raw[0] << 8 | raw[1])\n"
        "assert len(seen) == 65535 and 0 not in seen and max(seen) == 65535\n"
        "assert link._id(0) == b'\\x00\\x01'\n"
        "print('ok')\n"
    )
    env = {"MICROPYPATH": f"{PROJECT / 'firmware'}:{simple().parents[1]}:.frozen"}
    done = subprocess.run(
        [interpreter(), "-X", "heapsize=16M", "t.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "ok\n", done.stdout + done.stderr


@pytest.mark.parametrize("size", [0, 2])
def test_no_short_packet_makes_a_board_crash(play: Callable[..., tuple[BadBroker, VirtualBoard]], size: int) -> None:
    """A broker that sends each kind of packet with too few bytes costs connections, never a boot: four failed ones in a
    row would be safe mode, which a stolen broker must not be able to bring about."""
    kinds = range(16)

    def sends(own: range) -> Callable[[socket.socket, int], None]:
        def script(connection: socket.socket, number: int) -> None:
            greet(connection)
            kind = own[number % len(own)] << 4 | 2  # as QoS 1 where it is a publish
            connection.sendall(bytes((kind, size)) + bytes(range(size)))
            connection.sendall(publish("c", b"?"))
            while packet(connection)[0] & 0xF0 != 0x40:
                pass  # until it acknowledges, or has ended the connection

        return script

    # A board waits longer after each connection that failed; so four share the kinds, four of them each.
    shares = [(kinds[first::4], *play(sends(kinds[first::4]))) for first in range(4)]
    for own, broker, board in shares:
        broker.until(len(own), 100)
        assert "agent.py" not in board.log.read_text(), "a traceback"
