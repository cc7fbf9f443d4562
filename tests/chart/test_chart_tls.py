"""The bundled broker's TLS as the chart writes it: its own start script and mosquitto.conf, a Secret as cert-manager's.

There is no kubelet here: the volume is laid and renewed as a kubelet does it, by one link that is replaced.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import broker as brokers
import pytest
from boardimage.authority import CA, der
from boardlet_bridge.mqtt.credential import acl, hashed, write_keys
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from controlplane.pki import Authority, Pair
from provision.process import Process, free_port
from virtualboard import VirtualBoard

ROOT = Path(__file__).parents[2]
BOARD_ID = "k7m2q9xa"
HOST = "boardlet-broker.example"
WAIT_S = 30.0


def kubelet(volume: Path, authority: Authority, pair: Pair) -> None:
    """Lay or renew a Secret's files: a folder of their own, which ..data points to; the files are links through it."""
    folder = volume / f"..{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    for name, content in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority.certificate)):
        (folder / name).write_bytes(content)
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    link = volume / "..data.new"
    link.symlink_to(folder.name)
    os.replace(link, volume / "..data")


@dataclass
class Bundled:
    """The chart's broker as a process: its two files, with this machine's paths and ports."""

    folder: Path
    port: int
    psk_port: int
    process: Process

    def serves(self) -> bytes:
        """The certificate that it shows; b"" where it does not answer yet."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection(("127.0.0.1", self.port), WAIT_S) as raw, context.wrap_socket(raw) as made:
                return made.getpeercert(binary_form=True) or b""
        except OSError:
            return b""

    def log(self) -> str:
        return self.process.log.read_text(errors="replace")

    def until(self, true: Callable[[], bool]) -> None:
        self.process.wait_until(true, WAIT_S)


@pytest.fixture
def bundled(helm: Any, broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[Bundled]:
    if broker_programs.name != "mosquitto":
        pytest.skip("the chart's broker is mosquitto")
    objects = helm.render("--set", "broker.tls.secret=broker-tls,broker.tls.psk=true,broker.tls.only=true")
    files = next(o for o in objects if o["kind"] == "ConfigMap" and "mosquitto.conf" in o["data"])["data"]
    port, psk_port = free_port(), free_port()
    for was, now in (
        ("/tmp/", f"{tmp_path}/"),  # noqa: S108 - the container's own; first, as ours may be below it
        ("listener 8883", f"listener {port} 127.0.0.1"),
        ("listener 8884", f"listener {psk_port} 127.0.0.1"),
        ("listener 1884", f"listener {free_port()}"),
        ("/run/boardlet/tls", str(tmp_path / "tls")),
        ("/var/lib/boardlet", str(tmp_path / "state")),
        ("/etc/boardlet", str(tmp_path)),
    ):
        files = {name: text.replace(was, now) for name, text in files.items()}
    root = ["user root\n"] if os.geteuid() == 0 else []
    (tmp_path / "state").mkdir()
    (tmp_path / "mosquitto.conf").write_text("".join([files["mosquitto.conf"], *root]))
    (tmp_path / "start").write_text(files["start"])
    program = broker_programs.program
    env = {**program.env, "PATH": f"{program.path.parent}:{os.environ['PATH']}"}
    process = Process("broker", ["sh", tmp_path / "start"], log=tmp_path / "broker.log", env=env, cwd=tmp_path)
    made = Bundled(tmp_path, port, psk_port, process)
    yield made
    process.stop()
    print(made.log()[-3000:] if process.log.exists() else "")


KEY = board_key(bytes(32), BOARD_ID, 1)
LOGIN = seal.half_key(KEY, seal.PASSWORD).hex()[:32]


def admit(bundled: Bundled) -> None:
    """As the bridge beside it would."""
    state = bundled.folder / "state"
    (state / "users").write_text(f"{BOARD_ID}:{hashed(LOGIN)}\n")
    (state / "acl").write_text(acl("boardlet-bridge"))
    write_keys(state / "psk", {BOARD_ID: LOGIN})


def board(bundled: Bundled, port: int, **tls: object) -> VirtualBoard:
    config = {"id": BOARD_ID, "key": KEY.hex(), "host": "127.0.0.1", "port": port, "tls": tls}
    return VirtualBoard(bundled.folder / "board", config)


def test_a_board_over_the_charts_tls(bundled: Bundled) -> None:
    """A board that trusts the Secret's ca.crt is let in; the renewed Secret is shown within seconds, and it comes back.

    The broker is not restarted for that, and nothing is written on the board.
    """
    authority = Authority("cert-manager")
    kubelet(bundled.folder / "tls", authority, authority.server("broker", [HOST]))
    admit(bundled)
    bundled.process.start()
    bundled.until(lambda: bundled.serves() != b"")
    one = board(bundled, bundled.port, name=HOST)
    (one.flash / CA).write_bytes(der(authority.certificate))
    one.start()
    try:
        bundled.until(lambda: bundled.log().count(f" as {BOARD_ID}") == 1)
        before, pid = bundled.serves(), bundled.process.pid
        kubelet(bundled.folder / "tls", authority, authority.server("broker", [HOST]))
        bundled.until(lambda: bundled.serves() not in (b"", before))
        assert bundled.process.pid == pid
        one.kill()
        one.start()
        bundled.until(lambda: bundled.log().count(f" as {BOARD_ID}") == 2)
    finally:
        one.kill()


def test_a_board_over_the_charts_shared_keys(bundled: Bundled) -> None:
    """A key that the bridge writes while the broker runs lets its board in by TLS, which is not tried before."""
    authority = Authority("cert-manager")
    kubelet(bundled.folder / "tls", authority, authority.server("broker", [HOST]))
    bundled.process.start()
    bundled.until(lambda: bundled.serves() != b"")
    one = board(bundled, bundled.psk_port, psk=True)
    one.start()
    try:
        bundled.until(lambda: "TLS: no handshake" in one.log.read_text())
        admit(bundled)
        bundled.until(lambda: f" as {BOARD_ID}" in bundled.log())
    finally:
        one.kill()
