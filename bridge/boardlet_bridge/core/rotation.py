"""Rotation: a board's next key, sent over the air under the one that it holds (PROTOCOL.md section 13).

The board keeps both, and says so by speaking under the next one, which is in use from then on, at the broker too
(key_number). Until then nothing changes: a board that is away, or loses power, comes back under the key that it has.
What is sent can be opened in the session that it names and in no other, and is sent anew in each one.
"""

from __future__ import annotations

from typing import Final

from boardlet_wire.names import COMMAND, CommandKey, Operation

from boardlet_bridge.core.codec import encode
from boardlet_bridge.core.credential import mac
from boardlet_bridge.core.event import Effect, Publish, Wake
from boardlet_bridge.core.state import Board, Link

OVER_THE_AIR: Final = "OverTheAir"
MOST_S: Final = 600.0  # between two tries in one session: an agent of before has nothing that could take it


def under_way(board: Board) -> int:
    """The number of the key that the board is to get over the air, 0 where it has it, or is to be flashed with it."""
    if (board.spec.get("credential") or {}).get("rotation") != OVER_THE_AIR:
        return 0
    return board.wanted_key if 0 < board.key_number < board.wanted_key else 0


def offer(board: Board, now: float) -> list[Effect]:
    """Send the next key where one is due; does nothing for most boards, at any time."""
    number = under_way(board)
    here = board.broker_up and board.birth is not None and board.link in (Link.ASKING, Link.LIVE)
    if not number or not here or not board.epoch or board.rival or board.deleting or board.restored_generation:
        return []
    if board.offered_in != board.epoch:
        board.offered_in, board.offers = board.epoch, 0
    elif now < board.offer_again:
        return []
    board.offer_again = now + min(board.limits.ask_again_s * 2**board.offers, MOST_S)
    board.offers += 1
    board.asks += 1
    nonce = board.ring.nonce(board.keys.board_id, board.asks)
    body: dict[int, object] = {
        CommandKey.NONCE: nonce,
        CommandKey.OPERATION: int(Operation.ROTATE),
        CommandKey.EPOCH: board.epoch,
        CommandKey.ARGUMENTS: [number, _wrapped(board, number, nonce)],
    }
    return [Publish(COMMAND, board.keys.close(COMMAND, encode(body))), Wake(board.offer_again)]


def _wrapped(board: Board, number: int, nonce: bytes) -> bytes:
    # One block of HMAC under the present key hides the next one; the command's seal holds it together.
    held, given = (board.ring.board_key(board.keys.board_id, n) for n in (board.keys.number, number))
    return bytes(a ^ b for a, b in zip(given, mac(held, b"rotate\x00", nonce), strict=True))
