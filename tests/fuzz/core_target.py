"""The core's step under arbitrary payloads, and under mutated bodies with a right seal, on every letter.

After every input the status must be one that docs/status.md allows and that an API server takes. Board and object are
renewed every few inputs.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import cbor2
from boardlet_bridge.core.credential import mac
from boardlet_bridge.core.event import Message
from boardlet_bridge.core.status import snapshot
from boardlet_wire import seal
from boardlet_wire.names import EPOCH_SEALED
from boardlet_wire.topic import topic
from codec_target import bodies
from peer import BOARD_ID, World, check, ready
from test_hostile import writable

LETTERS: Final = "srwdatl"
INPUTS_A_WORLD: Final = 40


class Core:
    """Each input: a byte that says letter, seal and kind, then what the body is made of."""

    name = "core"

    def __init__(self) -> None:
        self.count = 0
        self.world = ready()

    def renew(self) -> None:
        self.world = ready()
        self.count = 0

    def seeds(self) -> list[bytes]:
        world = ready()
        own = [world.side.here(), world.side.report({1: 20.0}), world.side.gone(), world.side.asleep()]
        own += [world.side.full(b"12345678"), world.side.want(world.side.model, 0, 200)]
        raw = [message.payload[: -seal.UP_TAG] for message in own]
        raw.append(world.retained["d"][: -seal.DOWN_TAG])
        return [bytes([kind]) + body for body in raw for kind in (0, 1, 2, 3, 7, 10, 129)] + [
            bytes([n % 256]) + body for n, body in enumerate(bodies())
        ]

    def take(self, data: bytes) -> Hashable:
        self.count += 1
        if self.count % INPUTS_A_WORLD == 0:
            self.renew()
        world = self.world
        world.refused.clear()
        world.published.clear()
        world.notices.clear()
        kind, body = (data[0], data[1:]) if data else (0, b"")
        letter = LETTERS[kind % len(LETTERS)]
        if kind < 224:
            body = self._near(body, kind)
            body = self._sealed(letter, body)
        world.send(Message(letter, body))
        if kind % 3 == 0:
            world.wait(kind % 16)
        status = snapshot(world.board, world.object["status"], "t")
        check(status)
        writable(status)
        return (
            letter,
            tuple(world.refused[:3]),
            tuple(p.letter for p in world.published[:3]),
            world.board.link.name,
            tuple((c.status, c.reason) for c in world.board.shown),
        )

    def _near(self, body: bytes, kind: int) -> bytes:
        # Half of what is a map gets the epoch, sequence and nonce that are due, or it would never get far.
        if not kind & 1:
            return body
        try:
            fields: Any = cbor2.loads(body)
        except Exception:
            return body
        if type(fields) is not dict:
            return body
        board, letter = self.world.board, LETTERS[kind % len(LETTERS)]
        if letter == "r":
            fields[-1] = board.next_sequence
            if -5 in fields and board.nonce:
                fields[-5] = board.nonce
        elif letter == "s":
            fields |= {0: 1, 2: board.epoch or b"epoch--1"}
        try:
            return cbor2.dumps(fields)
        except Exception:
            return body

    def _sealed(self, letter: str, body: bytes) -> bytes:
        world: World = self.world
        if letter == "d":
            return world.board.keys.close("d", body)
        context = world.board.epoch if letter in EPOCH_SEALED else b""
        half = world.side.half(seal.UP)
        return body + mac(half, topic(BOARD_ID, letter).encode(), b"\x00", context, body)[: seal.UP_TAG]
