"""A site on this machine: broker, bridge and virtual boards beside a cluster; all its state in one folder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from boardlet_wire import seal
from boardlet_wire.keys import board_key, claim_key
from broker import Broker, Programs
from broker.access import BRIDGE, replace
from virtualboard import VirtualBoard

from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.cluster import Cluster

KEY_NUMBER: Final = 1
CLAIM_NUMBER: Final = 1


class Site:
    """Broker, bridge and boards of one root key; nothing runs before `start`."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        broker: Programs | None = None,
        settings: Mapping[str, object] | None = None,
        credentials: bool = False,
        dynamic: bool = False,
    ) -> None:
        """With `credentials` the bridge lets boards in at the broker; without, or with mochi-mqtt, `add_board` does.

        With `dynamic` too, over the network, by mosquitto's plugin dynamic-security.
        """
        self.folder = folder
        self.cluster = cluster
        self.root = secrets.token_bytes(32)
        self.boards: dict[str, VirtualBoard] = {}
        password = secrets.token_hex(16)
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / "root.key", self.root.hex())
        replace(folder / "bridge.password", password)
        self.broker = Broker(folder / "broker", broker)
        self.broker.add_user(BRIDGE, password)
        self.broker.kept_by_bridge = (credentials or dynamic) and self.broker.programs.name == "mosquitto"
        self.broker.dynamic = dynamic and self.broker.kept_by_bridge
        files = {f"broker_{name}": getattr(self.broker, name) for name in ("users_file", "acl_file", "pid_file")}
        if self.broker.dynamic:
            files = {"broker_logins": "dynamic-security"}
        self.settings: dict[str, object] = {
            "broker_port": self.broker.port,
            "broker_password_file": folder / "bridge.password",
            "root_key_file": folder / "root.key",
            "kubeconfig": folder / "bridge.kubeconfig",
            **(files if self.broker.kept_by_bridge else {}),
            **(settings or {}),
        }
        self.bridge = BridgeProcess(folder, self.settings)

    def start(self) -> None:
        """Start broker and bridge; returns when both are ready."""
        self.broker.start()
        if not Path(str(self.settings["kubeconfig"])).exists():
            self.cluster.bridge_kubeconfig(Path(str(self.settings["kubeconfig"])))
        self.bridge.start()

    def add_board(
        self,
        board_id: str,
        *,
        config: Mapping[str, object] | None = None,
        pin_udp: int | None = None,
        program: Path | None = None,
        within: Sequence[str] = (),
    ) -> VirtualBoard:
        """A board with this id, not powered yet; known to the broker, unless that is the bridge's to say.

        `within` is a command that runs it elsewhere.
        """
        key = board_key(self.root, board_id, KEY_NUMBER)
        if not self.broker.kept_by_bridge:
            self.broker.add_user(board_id, seal.half_key(key, seal.PASSWORD).hex()[:32])
        full = {
            "id": board_id,
            "key": key.hex(),
            "key_number": KEY_NUMBER,
            "host": "127.0.0.1",
            "port": self.broker.board_port,
            **(config or {}),
        }
        board = self.boards[board_id] = VirtualBoard(
            self.folder / board_id, full, pin_udp=pin_udp, program=program, within=within
        )
        return board

    def add_claim(self, name: str, *, config: Mapping[str, object] | None = None) -> VirtualBoard:
        """A board that holds nothing but the site's claim, not powered yet; `name` is its folder's alone."""
        key = claim_key(self.root, CLAIM_NUMBER)
        full = {"claim": key.hex(), "host": "127.0.0.1", "port": self.broker.board_port, **(config or {})}
        board = self.boards[name] = VirtualBoard(self.folder / name, full, claim=True)
        return board

    def stop(self) -> None:
        """Stop everything that runs."""
        for board in self.boards.values():
            board.kill()
        self.bridge.stop()
        self.broker.stop()

    def __enter__(self) -> Site:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
