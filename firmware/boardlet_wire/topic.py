# Topics: PROTOCOL.md section 2.
from hashlib import sha256


def bucket(board_id):
    n = sha256(board_id.encode()).digest()[0]
    return "0123456789abcdef"[n >> 4] + "0123456789abcdef"[n & 15]


def topic(board_id, letter):
    return "b/" + bucket(board_id) + "/" + board_id + "/" + letter
