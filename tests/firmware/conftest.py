"""A broker that knows one board and the bridge, and a board that is powered when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import broker as brokers
import pytest
from bridge_side import Peer, admit, config
from broker import Broker
from virtualboard import VirtualBoard


@pytest.fixture
def broker(broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "broker", broker_programs)
    made.packet_bytes = None  # a foreign broker's default: the board must bear what it lets through
    admit(made)
    with made:
        yield made


@pytest.fixture
def peer(broker: Broker) -> Iterator[Peer]:
    made = Peer(broker)
    yield made
    made.close()


@pytest.fixture
def make_board(broker: Broker, tmp_path: Path) -> Iterator[Callable[..., VirtualBoard]]:
    boards: list[VirtualBoard] = []

    def make(program: Path | None = None, compiled: bool = False, **more: object) -> VirtualBoard:
        board = VirtualBoard(
            tmp_path / f"board{len(boards)}", config(broker, **more), program=program, compiled=compiled
        )
        boards.append(board)
        return board

    yield make
    for board in boards:
        board.kill()
        print(board.log.read_text(errors="replace")[-3000:] if board.log.exists() else "(no console)")


@pytest.fixture
def board(make_board: Callable[..., VirtualBoard], peer: Peer) -> VirtualBoard:
    """A blank board that is powered, and has been heard under its first key."""
    made = make_board()
    made.start()
    peer.here()
    return made
