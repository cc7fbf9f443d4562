"""Key numbers: which of a board's keys is in use, and which are never accepted again.

The object says which keys are revoked and which one follows, a board by its seal which one it holds. A higher number
that the board has spoken under stays in use whatever an older object says, as after a restore of the cluster; what is
revoked, or below what was in use, opens nothing any more. The broker's login goes with the number in use.
"""

from __future__ import annotations

from boardlet_wire import seal
from boardlet_wire.names import DESIRED, SESSION, SessionKey

from boardlet_bridge.core.codec import Fields, MalformedError
from boardlet_bridge.core.credential import MAX_KEY_NUMBER, BoardKeys
from boardlet_bridge.core.state import Board, Link


def follow(board: Board) -> bool:
    """Take the object's word on keys; whether the board has to be looked for anew."""
    number = board.key_number
    if number == 0:
        _forget(board)
        board.link, board.desired = Link.REVOKED, None
        return False
    if number == board.keys.number and board.link is not Link.REVOKED:
        return False
    _forget(board)
    board.link = Link.WAITING
    use(board, board.ring.board(board.keys.board_id, number))
    return board.broker_up


def use(board: Board, keys: BoardKeys) -> None:
    """Speak with the board under these keys from now on; what waits in its mailbox is sealed anew."""
    board.keys = keys
    board.nonce, board.mailed_at = b"", 0.0  # it could not read what was asked under the other key
    if board.desired is not None:
        board.desired = board.desired.sealed(keys.close(DESIRED, board.desired.payload[: -seal.DOWN_TAG]))


def open_session(board: Board, payload: bytes) -> memoryview | None:
    """The body of an `s` under the number in use, or under another one that may be, which then is; else None."""
    body = board.keys.open(SESSION, payload, b"")
    if body is None and (number := claimed(payload)) > board.lowest_key and number != board.keys.number:
        keys = board.ring.board(board.keys.board_id, number)
        body = keys.open(SESSION, payload, b"")
        if body is not None:
            use(board, keys)
    if body is not None:
        board.proven_key = board.keys.number
    return body


def former(board: Board, payload: bytes) -> memoryview | None:
    """The body of an `s` that is rightly sealed under a number which is not accepted any more, else None."""
    number = claimed(payload)
    if not board.ring.lowest <= number <= board.lowest_key:
        return None
    return board.ring.board(board.keys.board_id, number).open(SESSION, payload, b"")


def claimed(payload: bytes) -> int:
    """The key number that an `s` names, before its seal is looked at; 0 where there is none."""
    try:
        return Fields.decode(memoryview(payload)[: -seal.UP_TAG]).integer(SessionKey.KEY_NUMBER, 1, MAX_KEY_NUMBER)
    except MalformedError:
        return 0


def opens_mailbox(board: Board, payload: bytes) -> memoryview | None:
    """The body of a mailbox that was sealed under the number in use, or under the one that the object asks for.

    That one the bridge before this one may have heard already. None of before the number in use: who has such a key
    would set the revisions.
    """
    for number in {board.keys.number: None, board.wanted_key: None}:
        if number > board.lowest_key:
            keys = board.keys if number == board.keys.number else board.ring.board(board.keys.board_id, number)
            if (body := keys.open_own(DESIRED, payload)) is not None:
                return body
    return None


def _forget(board: Board) -> None:
    board.epoch, board.nonce, board.birth, board.sleep = b"", b"", None, None
    board.link_detail = ""
