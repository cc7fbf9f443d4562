"""A board that enrols bears a power cut in the middle of becoming somebody."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import pytest
from virtualboard import VirtualBoard

WAIT_S = 20.0
NOWHERE = {"host": "127.0.0.1", "port": 1}  # nobody listens there
IDENTITY = {**NOWHERE, "grace_s": 0, "id": "k7m2q9xa", "key": "11" * 32, "key_number": 1}
CLAIM = {**NOWHERE, "grace_s": 0, "claim": "22" * 32}


def read(board: VirtualBoard) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads((board.flash / "config.json").read_text())
    except ValueError:
        return {}
    return found


def fingerprints(board: VirtualBoard) -> list[str]:
    if not board.log.exists():
        return []
    return re.findall("fingerprint ([0-9a-f]{16})\n", board.log.read_text(errors="replace"))


def keep(board: VirtualBoard, config: dict[str, object]) -> None:
    """As boardlet.store has it: what the board is about to write into config.json."""
    data = json.dumps(config).encode()
    (board.flash / "state").mkdir()
    head = struct.pack(">2sHII", b"BL", 0, 1, zlib.crc32(data, 1))
    (board.flash / "state/enrola").write_bytes(head + data)


@pytest.mark.parametrize(("torn", "kept"), [("", IDENTITY), ('{"host": "127.0', CLAIM)])
def test_a_power_cut_costs_neither_claim_nor_identity(tmp_path: Path, torn: str, kept: dict[str, object]) -> None:
    """config.json empty or torn, as on FAT: the next boot has what was being written, and goes on from there."""
    board = VirtualBoard(tmp_path / "board", {}, claim=True)
    (board.flash / "config.json").write_text(torn)
    keep(board, kept)
    board.start()
    try:
        board.wait_until(lambda: kept.items() <= read(board).items(), WAIT_S)
        board.wait_until(lambda: not list((board.flash / "state").glob("enrol?")), WAIT_S)
        board.wait_until(lambda: "broker: " in board.log.read_text(errors="replace"), WAIT_S)
    finally:
        board.kill()


def test_a_board_makes_its_secret_once(tmp_path: Path) -> None:
    """Flashed with a claim alone it makes its secret itself, and shows the same fingerprint after every power cut."""
    board = VirtualBoard(tmp_path / "board", CLAIM, claim=True)
    for boots in (1, 2):
        board.start()
        try:
            board.wait_until(lambda boots=boots: len(fingerprints(board)) == boots, WAIT_S)
        finally:
            board.kill()
    assert len(set(fingerprints(board))) == 1
