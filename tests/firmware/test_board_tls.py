"""TLS of a board: real MicroPython with its own mbedTLS against a real mosquitto, certificates right and wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import broker as brokers
import pytest
from boardimage.authority import CA, der
from bridge_side import BOARD_ID, Peer, admit, config
from broker import Broker
from controlplane.pki import LIFETIME, Authority
from provision.process import free_port
from test_two_keys import give, let_in, over
from virtualboard import VirtualBoard

WAIT_S = 30.0
HOST = "127.0.0.1"


WORK = """
from boardlet import app

@app.every(0.05)
def work():
    with open("work", "a") as f:
        f.write(".")
"""


class Place:
    """An authority, a broker that shows boards a certificate of it, and one board that trusts it."""

    def __init__(self, folder: Path, programs: brokers.Programs) -> None:
        self.folder = folder
        self.authority = Authority("site")
        self.broker = Broker(folder / "broker", programs)
        admit(self.broker)
        self.board: VirtualBoard | None = None

    def certify(self, *hosts: str, lifetime: timedelta = LIFETIME, authority: Authority | None = None) -> None:
        """Give the broker a certificate for these names, under the names of the files that it has."""
        pair = (authority or self.authority).server("broker", hosts, lifetime)
        self.broker.board_certificate = pair.write(self.folder, "broker")

    def power(self, *authorities: Authority, compiled: bool = False, app: str = "", **tls: object) -> VirtualBoard:
        """Power on a board that is to speak TLS and trusts these; default: the broker's own."""
        more = {"port": self.broker.board_port, "tls": tls}
        self.board = VirtualBoard(self.folder / "board", config(self.broker, **more), compiled=compiled)
        (self.board.flash / "app.py").write_text(app)
        self.trust(*authorities or (self.authority,))
        self.board.start()
        return self.board

    def trust(self, *authorities: Authority) -> None:
        assert self.board is not None
        (self.board.flash / CA).write_bytes(b"".join(der(authority.certificate) for authority in authorities))

    @property
    def log(self) -> str:
        return self.board.log.read_text(errors="replace") if self.board and self.board.log.exists() else ""

    def until(self, true: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        assert self.board is not None
        self.board.wait_until(true, wait_s)

    def refused(self, why: str, times: int = 1) -> None:
        """The board says why as often, and when it will try again; it does not reset, and is no client."""
        self.until(lambda: self.log.count(why) >= times)
        self.until(lambda: "again in" in self.log.rpartition(why)[2])
        assert self.board is not None
        assert self.board.running
        assert "Traceback" not in self.log
        assert " as k7m2q9xa" not in (self.broker.folder / "broker.log").read_text()


@pytest.fixture
def place(tmp_path: Path, broker_programs: brokers.Programs) -> Iterator[Place]:
    if broker_programs.name != "mosquitto":
        pytest.skip("the demo's mochi-mqtt has no TLS")
    made = Place(tmp_path, broker_programs)
    yield made
    if made.board:
        made.board.kill()
    made.broker.stop()
    print(made.log[-3000:])


@pytest.fixture
def meet(place: Place) -> Iterator[Callable[[], Peer]]:
    """Starts the broker, and the bridge's side at its plain port."""
    peers: list[Peer] = []

    def start() -> Peer:
        place.broker.start()
        peers.append(Peer(place.broker))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_board_over_tls(place: Place, meet: Callable[[], Peer], compiled: bool) -> None:
    """A board that trusts the broker's authority is told its model and its values over TLS, and switches its pin."""
    place.certify(HOST)
    peer = meet()
    board = place.power(compiled=compiled)
    peer.here()
    peer.desire({0: True, 1: 20.0, 3: "a"})
    peer.here(2)
    assert peer.full()[0] is True
    assert board.pin(2) == 1


def test_a_board_by_a_shared_key(place: Place, meet: Callable[[], Peer]) -> None:
    """With `psk` board and broker know each other by the board's own key: no certificate is needed, and no time."""
    place.broker.board_keys = True
    peer = meet()
    board = place.power(psk=True, since=[2099, 1, 1], ntp=HOST, ntp_port=free_port())
    (board.flash / CA).unlink()
    peer.here()
    assert "TLS" not in place.log


def test_a_shared_key_is_rotated_with_the_boards(place: Place, meet: Callable[[], Peer]) -> None:
    """A board that holds two keys comes back whichever the broker knows, and goes on under the new one alone."""
    place.broker.board_keys = True
    peer = meet()
    board = place.power(psk=True)
    peer.here()
    give(peer)
    let_in(place.broker)
    over(board, peer)


def test_another_key_is_refused(place: Place) -> None:
    """A broker that does not know the board's key cannot play its own, and hears no login."""
    place.broker.board_keys = True
    place.broker.users[BOARD_ID] = "another"
    place.broker.start()
    place.power(psk=True)
    place.refused("TLS: no handshake")


def test_another_authority_is_refused(place: Place) -> None:
    """A broker whose certificate another authority of the same name signed hears neither id nor login, ever again."""
    place.certify(HOST, authority=Authority("site"))
    place.broker.start()
    place.power()
    place.refused("not correctly signed by the trusted CA", times=2)


def test_another_name_is_refused_unless_it_is_named(place: Place, meet: Callable[[], Peer]) -> None:
    """A certificate for another name or address is refused; with `name` it is that which must be right."""
    place.certify("broker.example", "10.9.8.7")
    peer = meet()
    board = place.power()
    place.refused("does not match with the expected CN")
    board.kill()
    board.configure(config(place.broker, port=place.broker.board_port, tls={"name": "broker.example"}))
    board.start()
    peer.here()


@pytest.mark.parametrize(
    ("begin", "lifetime", "why"),
    [(timedelta(), timedelta(minutes=-1), "has expired"), (timedelta(days=2), LIFETIME, "starts in the future")],
)
def test_dates_are_checked_by_the_boards_clock(
    place: Place, monkeypatch: pytest.MonkeyPatch, begin: timedelta, lifetime: timedelta, why: str
) -> None:
    """A certificate that is not valid today is refused, and the board says which day it takes today for."""
    monkeypatch.setattr("controlplane.pki._SKEW", timedelta(minutes=5) - begin)
    place.certify(HOST, lifetime=lifetime)
    place.broker.start()
    place.power()
    place.refused(why)
    assert f"the board's date is {datetime.now(UTC):%Y-%m-%d}" in place.log


def test_a_renewed_certificate_needs_nothing_of_boards(place: Place, meet: Callable[[], Peer]) -> None:
    """A connection outlives the renewal of the broker's files; the next one is made under the new certificate."""
    place.certify(HOST)
    peer = meet()
    board = place.power()
    peer.here()
    peer.desire({0: False, 1: 20.0, 3: "a"})
    peer.here(2)
    epoch, before = peer.epoch, served(place.broker)
    place.certify(HOST)
    place.broker.reload()
    place.until(lambda: served(place.broker) != before)
    peer.full()
    assert peer.epoch == epoch
    board.kill()
    board.start()
    peer.here(3)


def test_an_authority_is_replaced_by_trusting_both(place: Place, meet: Callable[[], Peer]) -> None:
    """A board that holds two authorities takes a broker of either, so that one can follow the other in the field."""
    new = Authority("new")
    place.certify(HOST)
    peer = meet()
    board = place.power(place.authority, new)
    peer.here()
    before = served(place.broker)
    place.certify(HOST, authority=new)
    place.broker.reload()
    place.until(lambda: served(place.broker) != before)
    board.kill()
    board.start()
    peer.here(2)


@pytest.mark.parametrize(
    ("held", "why"),
    [(None, "TLS: ca.der: OSError(2,)"), (b"", "TLS: ca.der: IndexError"), (b"0\x82\x01\x00x" * 60, "ValueError")],
)
def test_a_damaged_authority_trusts_nobody(place: Place, held: bytes | None, why: str) -> None:
    """Without ca.der, or with one that is none, the board connects to nobody, says so, and goes on trying."""
    place.certify(HOST)
    place.broker.start()
    board = place.power()
    board.kill()
    path = board.flash / CA
    path.unlink() if held is None else path.write_bytes(held)
    board.log.unlink()
    board.start()
    place.refused(why)


def test_a_broker_without_tls_is_refused(place: Place) -> None:
    """A board that is to speak TLS never falls back: at a plain port it says nothing that could be heard."""
    place.broker.start()
    place.power()
    place.refused("TLS: no handshake")


def test_a_silent_server_stops_nothing(place: Place) -> None:
    """Where a handshake gets no answer, the board's work goes on meanwhile."""
    place.certify(HOST)
    with socket.create_server((HOST, 0)) as server:
        place.broker.board_port = server.getsockname()[1]
        board = place.power(app=WORK)
        server.settimeout(WAIT_S)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"\x16"  # its ClientHello
            work = board.flash / "work"
            begun = work.stat().st_size if work.exists() else 0
            place.until(lambda: work.exists() and work.stat().st_size >= begun + 10)
            assert "broker:" not in place.log


def test_a_board_without_the_time_asks_for_it(place: Place, meet: Callable[[], Peer]) -> None:
    """A clock that shows a day before `since` was never set: the board asks its NTP server, sets it, and goes on."""
    place.certify(HOST)
    peer = meet()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.setblocking(False)
        board = place.power(since=[2099, 1, 1], ntp=HOST, ntp_port=server.getsockname()[1])
        seconds = int(datetime(2040, 2, 29, 13, 14, 15, tzinfo=UTC).timestamp()) + 2208988800

        def answered() -> bool:
            with contextlib.suppress(BlockingIOError):
                asked, who = server.recvfrom(64)
                assert (len(asked), asked[0]) == (48, 0x1B)
                server.sendto(bytes(40) + struct.pack(">II", seconds & 0xFFFFFFFF, 0), who)
            return bool(peer.sessions)

        peer.until(answered)
    assert board.world("rtc").read_text() == "(2040, 2, 29, 3, 13, 14, 15, 0)"


def test_no_time_is_no_connection(place: Place) -> None:
    """A board that does not know the time and gets no answer connects to nobody, says so, and asks again."""
    place.certify(HOST)
    place.broker.start()
    place.power(since=[2099, 1, 1], ntp=HOST, ntp_port=free_port())
    place.refused(f"TLS: no time from {HOST}")


def served(broker: Broker) -> bytes:
    """The certificate that it shows whoever connects now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((HOST, broker.board_port), WAIT_S) as raw,
        context.wrap_socket(raw) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""
