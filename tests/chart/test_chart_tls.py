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
from boardlet_bridge.mqtt.credential import acl, hashed
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


@pytest.fixture
def bundled(helm: Any, broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[Bundled]:
    if broker_programs.name != "mosquitto":
        pytest.skip("the chart's broker is mosquitto")
    objects = helm.render("-f", ROOT / "tests/chart/values/bare.yaml")
    files = next(o for o in objects if o["kind"] == "ConfigMap" and "mosquitto.conf" in o["data"])["data"]
    port = free_port()
    for was, now in (
        ("/tmp/", f"{tmp_path}/"),  # noqa: S108 - the container's own; first, as ours may be below it
        ("listener 8883", f"listener {port} 127.0.0.1"),
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
    made = Bundled(tmp_path, port, process)
    yield made
    process.stop()
    print(made.log()[-3000:] if process.log.exists() else "")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_board_over_the_charts_tls(bundled: Bundled, tmp_path: Path) -> None:
    """A board that trusts the Secret's ca.crt is let in; the renewed Secret is shown within seconds, and it comes back.

    The broker is not restarted for that, and nothing is written on the board.
    """
    authority = Authority("cert-manager")
    kubelet(tmp_path / "tls", authority, authority.server("broker", [HOST]))
    key = board_key(bytes(32), BOARD_ID, 1)
    login = seal.half_key(key, seal.PASSWORD).hex()[:32]
    (tmp_path / "state/users").write_text(f"{BOARD_ID}:{hashed(login)}\n")
    (tmp_path / "state/acl").write_text(acl("boardlet-bridge"))
    bundled.process.start()
    until(lambda: bundled.serves() != b"")
    config = {"id": BOARD_ID, "key": key.hex(), "host": "127.0.0.1", "port": bundled.port, "tls": {"name": HOST}}
    board = VirtualBoard(tmp_path / "board", config)
    (board.flash / CA).write_bytes(der(authority.certificate))
    board.start()
    try:
        until(lambda: bundled.log().count(f" as {BOARD_ID}") == 1)
        before, pid = bundled.serves(), bundled.process.pid
        kubelet(tmp_path / "tls", authority, authority.server("broker", [HOST]))
        until(lambda: bundled.serves() not in (b"", before))
        assert bundled.process.pid == pid
        board.kill()
        board.start()
        until(lambda: bundled.log().count(f" as {BOARD_ID}") == 2)
    finally:
        board.kill()
