"""Want and file: the compiled model, in chunks that the board asks for (PROTOCOL.md section 9)."""

from __future__ import annotations

from typing import Final

from boardlet_wire.names import FILE, FILE_NOT_HERE, WANT, FileKey, WantKey
from boardlet_wire.seal import DOWN_TAG

from boardlet_bridge.core.codec import DIGEST_BYTES, Fields, encode
from boardlet_bridge.core.event import Effect, Publish, Refused
from boardlet_bridge.core.session import introduce
from boardlet_bridge.core.state import Board

# Map head, five keys, digest, two integers of five bytes and a three-byte string head.
OVERHEAD_BYTES: Final = 1 + 4 + (1 + DIGEST_BYTES) + 5 + 5 + 3 + DOWN_TAG


def read_want(board: Board, payload: bytes, now: float) -> list[Effect]:
    """Answer one want with the bytes, or with "not here"; never more than the board can take."""
    body = board.keys.open(WANT, payload, board.epoch) if board.epoch else None
    if body is None:
        return [Refused("wrong_seal" if board.epoch else "unknown_epoch", "want"), *introduce(board, now)]
    fields = Fields.decode(body)
    digest = fields.octets(WantKey.DIGEST, DIGEST_BYTES)
    offset = fields.integer(WantKey.OFFSET)
    length = min(fields.integer(WantKey.LENGTH, 1), board.receive_limit - OVERHEAD_BYTES)
    answer: dict[int, object] = {FileKey.DIGEST: digest}
    if board.model is None or board.model.digest != digest or offset > len(board.model.encoded):
        answer[FileKey.ERROR] = FILE_NOT_HERE
    else:
        data = board.model.encoded
        answer |= {FileKey.OFFSET: offset, FileKey.TOTAL: len(data), FileKey.DATA: data[offset : offset + length]}
    return [Publish(FILE, board.keys.close(FILE, encode(answer), board.epoch))]
