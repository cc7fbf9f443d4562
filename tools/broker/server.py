"""One broker on loopback with all its state in one folder: mosquitto, or mochi-mqtt where there is no mosquitto.

Its settings are those that a fleet needs (docs/operations.md): queues that hold a fleet's retained messages, no Nagle,
retained messages on disk soon after they came, nobody anonymous.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from provision import cache, debs, golang
from provision.debs import Program
from provision.missing import Missing
from provision.process import Process, free_port, listens
from provision.progress import Progress

from . import access

VARIABLE: Final = "BOARDLET_BROKER"
MODULE: Final = Path(__file__).parent / "go"
_MOCHI_RELEASE: Final = "2.7.9"
_MOCHI_BUILD_S: Final = 20.0
# The longest payload that anybody here reads is 8 KiB. Without a limit one stolen credential can retain 256 MB, which
# broker and bridge would hold in memory at every start.
_PACKET_BYTES: Final = 16 * 1024
_TOOL_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Programs:
    """The broker's program, which of the two it is, and where it comes from in words."""

    name: str
    program: Program
    origin: str

    @property
    def plugin(self) -> Path:
        """mosquitto's plugin dynamic-security; raises `Missing`."""
        for found in (self.program.path.parents[1] / "lib").glob("**/mosquitto_dynamic_security.so"):
            return found
        raise Missing("mosquitto's plugin dynamic-security", "install the distribution's mosquitto")


def find(progress: Progress | None = None) -> Programs:
    """mosquitto from PATH, else out of the distribution's packages, else mochi-mqtt; raises `Missing`.

    `$BOARDLET_BROKER` (`mosquitto` or `mochi`) leaves no choice.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in ("", "mosquitto", "mochi"):
        raise Missing(f"a broker {chosen!r}", f"set {VARIABLE} to mosquitto or mochi, or unset it")
    if chosen == "mochi":
        return _mochi(progress, f"${VARIABLE}")
    found = debs.installed("mosquitto")
    if found is not None:
        return Programs("mosquitto", found, "PATH")
    try:
        return Programs("mosquitto", debs.program("mosquitto", progress=progress), "the distribution's packages")
    except Missing:
        if chosen:
            raise
        return _mochi(progress, "a Go build, because there is no mosquitto to be had here")


def _mochi(progress: Progress | None, origin: str) -> Programs:
    def build(into: Path) -> None:
        golang.build(MODULE, {"mochi": "."}, into, progress=progress)

    what = "building mochi-mqtt, once for this machine"
    sources = b"".join((MODULE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    version = f"{_MOCHI_RELEASE}-{hashlib.sha256(sources).hexdigest()[:12]}"
    if not cache.there("mochi", version):
        golang.toolchain(MODULE, progress)
    folder = cache.artifact("mochi", version, build, progress=progress, what=what, usual_s=_MOCHI_BUILD_S)
    return Programs("mochi-mqtt", Program(folder / "mochi"), origin)


class Broker:
    """A broker whose state is in `folder`; not started yet. Clients are added before or while it runs."""

    def __init__(self, folder: Path, programs: Programs | None = None) -> None:
        self.folder = folder
        self.programs = programs or find()
        self.port = free_port()
        self.board_port = free_port() if self.programs.name == "mosquitto" else self.port
        """Where a client's id is its user name, whatever it says: nobody there throws another one off by its id."""
        self.also: str | None = None
        """A second address to listen on, where boards in a network of their own reach it (mosquitto only)."""
        self.packet_bytes: int | None = _PACKET_BYTES
        """The longest packet that it takes from a client; None for any, as a foreign broker may have it."""
        self.autosave_s = 30
        """How often mosquitto writes its store; read at the start."""
        self.certificate: tuple[Path, Path] | None = None
        """Certificate and key (PEM) with which mosquitto speaks TLS, and nothing else, at `port`."""
        self.board_certificate: tuple[Path, Path] | None = None
        """The same for boards, at `board_port`; renewed files are read at `reload`."""
        self.board_keys = False
        """Whether it speaks TLS to boards by pre-shared keys instead; each follows from a user's password."""
        self.client_authority: Path | None = None
        """Who signs the certificates that it then asks of its clients, beside their passwords."""
        self.users: dict[str, str] = {}
        self.dynamic = False
        """Whether mosquitto's plugin dynamic-security has the users; BRIDGE is the first, and makes the others."""
        self.kept_by_bridge = False
        """Whether the bridge keeps mosquitto's files once there are first ones; `users` are then those of the first."""
        folder.mkdir(parents=True, exist_ok=True)
        self.process = Process(
            self.programs.name, self._argv(), log=folder / "broker.log", env=self.programs.program.env, cwd=folder
        )

    def start(self) -> None:
        """Start and return when it accepts connections; raises `Died` or `NotReady`."""
        self._write_access()
        if self.programs.name == "mosquitto":
            (self.folder / "mosquitto.conf").write_text(self._conf())
        self.process.argv = [str(part) for part in self._argv()]
        self.process.start()
        self.process.wait_until(lambda: listens(self.port) and listens(self.board_port))

    def stop(self) -> None:
        """Stop it in good order."""
        self.process.stop()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()

    def restart(self, *, keep_retained: bool = True) -> None:
        """Stop and start on the same port, with the retained messages or as if its disk had been lost."""
        self.stop()
        if not keep_retained:
            shutil.rmtree(self.folder / "data", ignore_errors=True)
        self.start()

    def add_user(self, user: str, password: str) -> None:
        """Let a client in; a board's user name is its id. Takes effect at once if the broker runs."""
        self.users[user] = password
        self.reload()

    def remove_user(self, user: str) -> None:
        """Let a client in no more; its connection is closed."""
        del self.users[user]
        self.reload()

    @property
    def users_file(self) -> Path:
        return self.folder / "passwords"

    @property
    def acl_file(self) -> Path:
        return self.folder / "acl"

    @property
    def keys_file(self) -> Path:
        return self.folder / "keys"

    @property
    def dynamic_file(self) -> Path:
        return self.folder / "dynamic-security.json"

    @property
    def pid_file(self) -> Path:
        return self.folder / "broker.pid"

    def reload(self) -> None:
        """Have the broker read its users anew."""
        if self.process.running:
            self._write_access()
            self.process.signal(signal.SIGHUP)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _argv(self) -> list[str | Path]:
        if self.programs.name == "mosquitto":
            return [self.programs.program.path, "-c", self.folder / "mosquitto.conf"]
        limit = ["-packet", str(self.packet_bytes)] if self.packet_bytes else []
        return [self.programs.program.path, "-listen", f"127.0.0.1:{self.port}", "-folder", self.folder, *limit]

    def _write_access(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        if self.dynamic:
            if not self.dynamic_file.exists():
                tool = self.programs.program.path.parents[1] / "bin/mosquitto_ctrl"
                env, first = self.programs.program.env, (access.BRIDGE, self.users[access.BRIDGE])
                init: list[str | Path] = [tool, "dynsec", "init", self.dynamic_file, *first]
                subprocess.run(init, check=True, timeout=_TOOL_S, stdout=subprocess.DEVNULL, env=env)
        elif self.programs.name == "mosquitto":
            if self.kept_by_bridge and self.users_file.exists():
                return
            access.replace(self.users_file, access.passwords(self.users))
            access.replace(self.acl_file, access.acl())
            access.replace(self.keys_file, access.keys(self.users))
        else:
            access.replace(self.folder / "users.json", json.dumps(self.users))

    def _tls(self) -> list[str]:
        lines = _certificate(self.certificate)
        if lines and self.client_authority:
            lines += [f"cafile {self.client_authority}", "require_certificate true"]
        return lines

    def _users(self) -> list[str]:
        if self.dynamic:
            return [f"plugin {self.programs.plugin}", f"plugin_opt_config_file {self.dynamic_file}"]
        keys = [f"psk_file {self.keys_file}"] if self.board_keys else []
        return [*keys, f"password_file {self.users_file}", f"acl_file {self.acl_file}"]

    def _conf(self) -> str:
        # As root mosquitto would change to a user of its own, who may not read the folder.
        user = ["user root"] if os.geteuid() == 0 else []
        boards = ["use_username_as_clientid true", *_certificate(self.board_certificate)]
        if self.board_keys:
            boards += ["psk_hint boardlet", "tls_version tlsv1.2"]
        return "\n".join(
            [
                "per_listener_settings false",
                f"listener {self.port} 127.0.0.1",
                *self._tls(),
                f"listener {self.board_port} 127.0.0.1",
                *boards,
                *([f"listener {self.board_port} {self.also}", *boards] if self.also else []),
                *user,
                "allow_anonymous false",
                *self._users(),
                f"pid_file {self.pid_file}",
                "max_queued_messages 200000",
                "max_inflight_messages 0",
                "set_tcp_nodelay true",
                *([f"max_packet_size {self.packet_bytes}"] if self.packet_bytes else []),
                "persistence true",
                f"persistence_location {self.folder / 'data'}/",
                # The whole store is written each time, so by time and not by changes: a fleet that comes back makes
                # thousands. What a power cut takes of it is no loss: boards say again who they are, and the bridge,
                # which reads its mailboxes back, mails again what is missing.
                "autosave_on_changes false",
                f"autosave_interval {self.autosave_s}",
                "sys_interval 5",
                "log_dest stdout",
                "log_type error",
                "log_type warning",
                "log_type notice",
                "connection_messages true",
                "",
            ]
        )


def _certificate(pair: tuple[Path, Path] | None) -> list[str]:
    return [f"certfile {pair[0]}", f"keyfile {pair[1]}", "tls_version tlsv1.2"] if pair else []
