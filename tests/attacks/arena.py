"""The ground of the attacks: real parts behind a stolen broker, a victim, and a neighbour who must not notice.

The attacker has what the test says: the network, the broker, a board's credential, a board's key. The bridge's root key
is used by the tests alone, to read what a board really said.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cbor2
import paho.mqtt.client as paho
from boardlet_bridge.core.credential import BoardKeys, KeyRing
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boardlet_wire.topic import topic
from fakes.lying_broker import LyingBroker
from greenhouse import LED, LIGHT, QUICK, WAIT_S, Greenhouse, create

GROWTH_MB: Final = 30.0  # what an allocator keeps of a flood; a leak of the floods below would be more
ASK_AGAIN_S: Final = 5.0
LOG_BYTES: Final = 20_000  # of a bridge's log during one attack: some lines a cause and board
_NUMBERS: Final = itertools.count(1)


@dataclass
class Arena:
    """Everything an attack needs."""

    site: Site
    cluster: Cluster
    tenant: Cluster
    """The same control plane, another tenant's namespace."""
    liar: LyingBroker
    neighbour: Greenhouse = field(init=False)

    def join(self, **spec: Any) -> Greenhouse:
        """One more board, Ready, its LED on, behind the stolen broker."""
        return self.join_at(self.liar.port, **spec)

    def join_at(self, port: int, **spec: Any) -> Greenhouse:
        """One that reaches the broker at this port."""
        number = next(_NUMBERS)
        board_id = f"attack{number:03d}"
        board = self.site.add_board(board_id, config={**QUICK, "port": port})
        board.set_adc(LIGHT, 100)
        made = Greenhouse(self.site, self.cluster, f"board-{number}", board, board_id)
        create(made, properties={"led": True}, **spec)
        board.start()
        made.synced()
        return made

    def leave(self, one: Greenhouse) -> None:
        """Take a board away with its object."""
        self.liar.passes = lambda said: True
        one.board.kill()
        self.cluster.run("delete", "board", one.name, "--wait=false")

    def keys(self, one: Greenhouse) -> BoardKeys:
        return KeyRing(self.site.root, bytes(16)).board(one.board_id)

    def counted(self, cause: str) -> float:
        """How many messages the bridge has refused for this cause."""
        return self.site.bridge.metric(f'boardlet_messages_refused_total{{cause="{cause}"}}')

    def until(self, true: Callable[[], object], wait_s: float = WAIT_S) -> None:
        """Return when it has become so; fails with the end of the bridge's log, at once where the bridge has died."""
        self.site.bridge.process.wait_until(lambda: bool(true()), wait_s)

    def epoch(self, one: Greenhouse) -> bytes:
        """The present session's epoch, as the board said it last."""
        said = self.liar.all(one.board_id, topic(one.board_id, "s"), up=True)
        body = self.keys(one).open("s", said[-1], b"")
        assert body is not None
        return bytes(cbor2.loads(body)[2])

    def dropped(self, one: Greenhouse) -> list[int]:
        """What the board has dropped since it booted: wrong seals, malformed, oversize, stale; it is asked for it."""
        nonces: list[bytes] = []
        asked = 0.0
        found: list[dict[int, Any]] = []

        def ask() -> None:
            nonces.append(f"ask{next(_NUMBERS):05d}".encode())
            body = self.keys(one).close("c", cbor2.dumps({0: nonces[-1], 1: 0}))
            with suppress(KeyError):  # between two connections
                self.liar.tell(one.board_id, topic(one.board_id, "c"), body)

        def answered() -> bool:
            nonlocal asked
            if time.monotonic() > asked + ASK_AGAIN_S:  # a new connection does not hear what the last one was told
                asked = time.monotonic()
                ask()
            epoch, keys = self.epoch(one), self.keys(one)
            for payload in reversed(self.liar.all(one.board_id, topic(one.board_id, "r"), up=True)):
                raw = keys.open("r", payload, epoch)
                if raw is not None and cbor2.loads(raw).get(-5) in nonces:
                    found.append(cbor2.loads(raw))
                    return True
            return False

        self.until(answered)
        return [found[0][-7][n] for n in range(4)]


@dataclass(frozen=True)
class State:
    """What no attack may change."""

    pin: int | None
    desired: Any
    reported: Any
    boots: int
    conditions: dict[str, tuple[str, str]]


def state(one: Greenhouse) -> State:
    status = one.object["status"]
    conditions = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"] if c["type"] != "MessagesRefused"}
    return State(
        one.board.pin(LED), status.get("desired"), status.get("reported"), status["board"]["bootCount"], conditions
    )


@contextmanager
def bounded(arena: Arena) -> Iterator[None]:
    """The bridge stays one process, within its memory, and says little; the neighbour stays as it is, and follows."""
    bridge, neighbour = arena.site.bridge, arena.neighbour
    pid, memory, log, before = bridge.process.pid, _memory_mb(arena), len(bridge.log), state(neighbour)
    assert before.conditions["Ready"] == ("True", "Synced")
    yield
    said = bridge.log[log:]
    assert "Traceback" not in said
    assert bridge.process.pid == pid
    assert _memory_mb(arena) < memory + GROWTH_MB
    assert len(said) < LOG_BYTES, said[-3000:]
    assert state(neighbour) == before
    assert not arena.neighbour.condition("MessagesRefused")[0]
    neighbour.edit(led=not before.pin)
    neighbour.synced()
    assert neighbour.board.pin(LED) == (not before.pin)


def _memory_mb(arena: Arena) -> float:
    status = Path(f"/proc/{arena.site.bridge.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def thief(arena: Arena, user: str, client_id: str = "", port: int = 0) -> Iterator[paho.Client]:
    """A client with a board's credential, before the real broker."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id or f"thief-{next(_NUMBERS)}")
    client.username_pw_set(user, arena.site.broker.users[user])
    client.max_inflight_messages_set(0)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port or arena.site.broker.port)
    client.loop_start()
    try:
        assert connected.wait(WAIT_S)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def patch(one: Greenhouse, spec: dict[str, Any]) -> None:
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", json.dumps({"spec": spec}))
