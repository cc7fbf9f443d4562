# Topics: PROTOCOL.md section 2.
from hashlib import sha256


def bucket(board_id):
    return sha256(board_id.encode()).digest()[:1].hex()


def topic(board_id, letter):
    return "b/%s/%s/%s" % (bucket(board_id), board_id, letter)
