"""The world of chaos with logins and keys: a broker that lets in one password a board, a board that may hold two keys.

The board's main.py, configuration and rotation are the real ones over the same flash, so that power is cut between any
two of their writes too. As with real bridges one keeps the logins; the first that is there.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from io import StringIO
from typing import Any
from unittest import mock

import cbor2
import silicon as chip
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.state import Board
from boardlet_bridge.runtime import wiring
from boardlet_wire.keys import board_key
from boardlet_wire.seal import UP_TAG
from boardlet_wire.topic import topic
from bridgeprocess import Process
from chaos import BOARD_ID, NAME, ROOT, World
from hub import Connection, Hub
from silicon import Flash, Silicon, config_module
from silicon import rotation_module as rotation
from truth import UntruthError

RING = KeyRing(ROOT, bytes(16))
CONFIG = "config.json"


class KeyedFlash(Flash):
    """With files of text, and folders."""

    def open(self, path: str, mode: str = "r") -> Any:
        if path != CONFIG:
            return super().open(path, mode)
        if "w" not in mode:
            raw: bytes = super().open(path).read()
            return StringIO(raw.decode())
        return self._text(super().open(path, mode))

    def _text(self, writing: Any) -> Any:
        class Text:
            def __enter__(self) -> Any:
                write = writing.__enter__().write
                return types.SimpleNamespace(write=lambda text: write(text.encode()))

            def __exit__(self, *error: Any) -> Any:
                return writing.__exit__(*error)

        return Text()

    def rmdir(self, path: str) -> None:
        if self.listdir(path):
            raise OSError(39)


class KeyedLink(chip.Link):
    """Logs in with the password that it has at that moment."""

    def __init__(self, cfg: dict[str, Any], prefix: str, limit: int) -> None:
        super().__init__(cfg, prefix, limit)
        self.pswd = cfg["password"]

    def open(self, now: int, keepalive: int, will: bytes) -> None:
        hub = self.silicon.hub
        assert isinstance(hub, KeyedHub)
        hub.offered = self.pswd
        super().open(now, keepalive, will)


class KeyedHub(Hub):
    """Lets the board in with `login` and nothing else; who has come with another password is thrown off."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self.offered = self.login = ""
        self.passwords: dict[Connection, str] = {}

    def dial(self, client_id: str, keepalive: int, will: tuple[str, bytes] | None = None) -> Connection | None:
        connection = super().dial(client_id, keepalive, will)
        if connection is not None and client_id == BOARD_ID:
            self.passwords[connection] = self.offered
        return connection

    def deliver_up(self, connection: Connection) -> None:
        if connection.up[0] == ("connect",) and self.passwords.get(connection, self.login) != self.login:
            connection.will = None
            self.end(connection)
            return
        super().deliver_up(connection)

    def let_in(self, login: str) -> None:
        if login != self.login:
            self.login = login
            for connection in self.live():
                if self.passwords.get(connection, login) != login:
                    self.end(connection)


class KeyedSilicon(Silicon):
    """Boots as main.py does, from its config.json."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.flash = KeyedFlash(self.spend)
        self.flash_with(1)
        self.attach()

    def flash_with(self, number: int) -> None:
        held = {"id": BOARD_ID, "host": "hub", "key": board_key(ROOT, BOARD_ID, number).hex(), "key_number": number}
        self.flash.files[CONFIG] = json.dumps(held).encode()

    def attach(self) -> None:
        super().attach()
        chip.agent_module.Link = KeyedLink
        for module in (rotation, config_module):
            module.open = self.flash.open
        rotation.os = self.flash
        rotation.sys = types.SimpleNamespace(modules={})
        rotation.print = lambda *a: None

    @property
    def holds_both(self) -> bool:
        return bool(self.flash.listdir(rotation.FOLDER))

    def _agent(self, boot: Any) -> Any:
        def run(boot: Any) -> None:
            made.append(chip.agent_module.Agent(config_module.load(), boot))

        made: list[Any] = []
        with (
            mock.patch.object(chip.agent_module, "run", run),
            mock.patch.object(chip.agent_module, "Agent", chip.agent_module.Agent),
        ):
            (rotation.run if self.holds_both else run)(boot)
        return made[0]


class KeyedWorld(World):
    """Chaos with keys."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.hub = KeyedHub(self.clock)
        self.hub.watch = self._published
        self.silicon = KeyedSilicon(BOARD_ID, ROOT, self.hub, self.clock, seed.to_bytes(8, "big"))
        self.silicon.deadly = lambda name, value: False
        self.logins: dict[Any, int] = {}
        self.spoken = 0
        self.believed: dict[Process, int] = {}

        def admit(bridge: wiring.Bridge, board_id: str, number: int) -> None:
            self.logins[bridge] = number
            self.let_in()

        self._patches.append(mock.patch.object(wiring.Bridge, "admit", admit))

    def let_in(self) -> None:
        """The first bridge keeps the broker's logins."""
        keeper = next((getattr(process, "bridge", None) for process in self.bridges), None)
        if keeper in self.logins:
            number = self.logins[keeper]
            self.hub.let_in(RING.broker_password(BOARD_ID, number) if number else "")

    def kill(self, process: Process) -> None:
        super().kill(process)
        self.let_in()

    def _published(self, client: str, topic_: str, payload: bytes) -> None:
        super()._published(client, topic_, payload)
        if client == BOARD_ID and topic_ == topic(BOARD_ID, "s") and payload:
            number = cbor2.loads(payload[:-UP_TAG])[3]
            if number < self.spoken:
                raise UntruthError(f"the board spoke under key {self.spoken}, and then under {number}")
            self.spoken = number

    def core(self, process: Process) -> Board | None:
        bridge = getattr(process, "bridge", None)
        entry = bridge.engine.registry.entries.get(("default", NAME)) if bridge else None
        return entry.board if entry else None

    def _move(self) -> bool:
        moved = super()._move()
        for process in self.bridges:
            if (board := self.core(process)) is not None:
                if board.keys.number < self.believed.get(process, 0):
                    raise UntruthError("a bridge went back to an older key")
                self.believed[process] = board.keys.number
        return moved

    @property
    def wanted(self) -> int:
        assert self.object is not None
        return int((self.object["spec"].get("credential") or {}).get("keyNumber", 1))

    def rotate(self, by: int) -> None:
        def change(obj: dict[str, Any]) -> None:
            old = obj["spec"].get("credential") or {}
            number = int(old.get("keyNumber", 1)) + by
            obj["spec"]["credential"] = {**old, "keyNumber": number, "rotation": "OverTheAir"}

        self.edit(change)

    def revoke(self) -> None:
        """As the runbook says: once the status has the new number, all before it."""

        def change(obj: dict[str, Any]) -> None:
            said = ((obj.get("status") or {}).get("board") or {}).get("keyNumber", 1)
            old = obj["spec"].get("credential") or {}
            revoked = max(old.get("revokedKeyNumber", 0), said - 1)
            obj["spec"]["credential"] = {"keyNumber": 1, **old, "revokedKeyNumber": revoked}

        self.edit(change)

    def difference(self) -> str:
        found = super().difference()
        if found:
            return found
        agent, number = self.silicon.agent, self.wanted
        assert self.object is not None
        said = self.object["status"]["board"]["keyNumber"]
        if agent.cfg.get("key_number", 1) != number or said != number or self.condition("Rotating"):
            return f"key {number} is wanted, the board has {agent.cfg.get('key_number')}, its status {said}"
        return "it holds two keys" if self.silicon.holds_both else ""
