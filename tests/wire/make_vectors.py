"""Makes firmware/boardlet_wire/vectors.json from cbor2, hmac and cryptography's X25519, never from our own code.

`python tests/wire/make_vectors.py > firmware/boardlet_wire/vectors.json`. Once a protocol version is released, its
vectors are only ever added to: hardware in the field was built against them.

Items in JSON: {"b": hex} bytes, {"f": number} a float, {"m": [[key, value], …]} a map; all else as it is.
"""

import hashlib
import hmac
import json
import struct
import sys

import cbor2
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

ROOT = bytes(range(32))
BOARD = "k7m2q9xa"
EPOCH = bytes.fromhex("a1b2c3d4e5f60718")
UID = bytes.fromhex("5f0d3c9a41e2")
EPOCH_SEALED = "rwfatli"
MODEL = {
    0: 1,
    1: [
        {0: 0, 1: "led", 2: 0, 3: 1, 7: False, 10: {0: "gpio_out", 1: [2]}},
        {0: 1, 1: "target", 2: 2, 3: 1, 4: 5, 5: 35, 7: 20.0},
        {0: 2, 1: "temp", 2: 2, 8: 0.25, 9: 5, 10: {0: "adc", 1: [34], 4: 0.5}},
        {0: 3, 1: "door", 2: 0, 10: {0: "gpio_in", 1: [4], 2: True, 3: 1}},
    ],
}
# A property of every type: its row in the model, a value, and the code of section 7 for each value that is refused.
TYPES = [
    ({0: 0, 1: "boolean", 2: 0, 3: 1}, True, [(1, 2), (1.0, 2), ("true", 2)]),
    ({0: 1, 1: "integer", 2: 1, 3: 1, 4: -10, 5: 10}, -7, [(11, 1), (-11, 1), (True, 2), ("1", 2)]),
    ({0: 2, 1: "wide", 2: 1, 3: 1}, 2**31 - 1, [(2**31, 1), (1.5, 2)]),
    ({0: 3, 1: "number", 2: 2, 3: 1, 4: 5, 5: 35}, 21.5, [(4.5, 1), (36.0, 1), (False, 2), (b"", 2)]),
    ({0: 4, 1: "string", 2: 3, 3: 1, 6: 4}, "Grü", [("Grün", 5), (b"ab", 2), (7, 2)]),
    ({0: 5, 1: "enum", 2: 4, 3: 1, 4: 0, 5: 2}, 2, [(3, 1), (-1, 1), ("Heat", 2), (1.0, 2)]),
    ({0: 6, 1: "bytes", 2: 5, 3: 1, 6: 2}, b"\x00\xff", [(b"abc", 5), ("ab", 2)]),
    ({0: 7, 1: "record", 2: 6, 3: 1, 11: [{2: 2, 4: 5}, {2: 0}, {2: 4, 4: 0, 5: 1}]}, [5.5, True, 1],
     [([4.0, True, 1], 1), ([5.5, 1, 1], 2), ([5.5, True], 2), ([5.5, True, 1, 0], 2), ([5.5, True, 2], 1), (5.5, 2)]),
    ({0: 8, 1: "array", 2: 7, 3: 1, 6: 3, 11: {2: 3, 6: 2}}, ["a", "", "bc"],
     [(["a", "b", "c", "d"], 5), (["abc"], 5), ([1], 2), ("abc", 2), ({0: "a"}, 2)]),
]  # fmt: skip
# float16 where exact, float32 otherwise, as cbor2 writes canonically; what a board reads may also be float64.
CBOR = [0, 23, 24, 255, 256, 65535, 65536, 2**31 - 1, 2**32 - 1, -1, -24, -25, -256, -257, -(2**31)]
CBOR += [0.0, 1.5, -2.0, 20.75, 65504.0, 65536.0, 21.2, 1e-3, 3.4028234663852886e38, True, False]
CBOR += ["", "led", "Grüße", "x" * 24, b"", b"\x00\xff", [], [1, [2, [3, [4, [5]]]]], {}, {0: True, 300: -5, -1: b"ab"}]
READ_ONLY = {"fb4034c00000000000": 20.75, "fb3ff8000000000000": 1.5, "f90001": 2**-24, "1817": 23, "190001": 1}
MALFORMED = {
    "empty": "",
    "trailing": "0000",
    "truncated head": "18",
    "truncated bytes": "4301",
    "truncated map": "a101",
    "array too long to be true": "9affffffff00",
    "map too long to be true": "baffffffff0000",
    "64-bit integer": "1b0000000100000000",
    "indefinite bytes": "5f4101ff",
    "indefinite map": "bf0001ff",
    "tag": "c100",
    "text key": "a1616100",
    "not UTF-8": "61ff",
    "infinity": "f97c00",
    "not a number": "fa7fc00000",
    "undefined": "f7",
    "simple value": "f8ff",
    "nested six deep": "8181818181" + "80",
    "break alone": "ff",
    "reserved length": "1c",
}


def mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def board_key(board_id: str, number: int) -> bytes:
    return mac(ROOT, b"boardlet/1\x00", board_id.encode(), b"\x00", number.to_bytes(4, "big"))


def short(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:8]


def float32(x: float) -> float:
    return struct.unpack(">f", struct.pack(">f", x))[0]


def encode(item: object) -> bytes:
    return cbor2.dumps(narrow(item), canonical=True)


def narrow(item: object) -> object:
    if isinstance(item, float):
        return float32(item)
    if isinstance(item, list):
        return [narrow(x) for x in item]
    if isinstance(item, dict):
        return {k: narrow(v) for k, v in item.items()}
    return item


def as_json(item: object) -> object:
    if isinstance(item, bytes):
        return {"b": item.hex()}
    if isinstance(item, float):
        return {"f": item}
    if isinstance(item, dict):
        return {"m": [[k, as_json(v)] for k, v in item.items()]}
    if isinstance(item, list):
        return [as_json(x) for x in item]
    return item


def messages() -> list[dict[str, object]]:
    model = encode(MODEL)
    state = encode({0: True, 1: 21.5, -1: short(model), -3: {0: 30}})
    sleepy = {0: True, -1: short(model), -3: {2: 3600}}
    typed = {0: 1, 1: [row for row, _, _ in TYPES]}
    values = {**{row[0]: value for row, value, _ in TYPES}, -1: short(encode(typed))}
    applied = [UID, 9, short(state), 4]
    birth = {
        0: 1, 1: 1, 2: EPOCH, 3: 1, 4: 17, 5: 1, 6: "0.1.0", 7: "esp32", 8: "ESP32 module", 9: 11014, 10: "1.25.0",
        11: 1024, 12: short(model), 14: applied, 17: False,
    }  # fmt: skip
    return [
        message("will", "s", {0: 1, 1: 0, 2: EPOCH, 3: 1}),
        message("birth", "s", birth),
        message("desired", "d", {0: UID, 1: 9, 2: 4, 3: state}),
        message("full report", "r", {
            0: True, 1: 21.5, 2: 20.75, 3: False,
            -1: 0, -2: applied, -4: 12, -5: bytes(8), -7: {0: 0, 1: 0, 2: 0, 3: 1}, -8: 0,
        }),
        message("change", "r", {2: 21.2, -1: 1}),
        message("answer to an edit", "r", {0: False, -1: 2, -2: [UID, 10, short(b"x"), 5], -3: {1: 1}}),
        message("refusal", "r", {-1: 3, -6: [11, short(b"y"), 1]}),
        message("heartbeat", "r", {-1: 4, -2: 10, -4: 72}),
        message("report everything", "c", {0: bytes(range(8)), 1: 0}),
        message("introduce yourself", "c", {0: bytes(range(8)), 1: 1}),
        message("take the next key", "c", {0: bytes(range(8)), 1: 2, 2: EPOCH, 5: [2, wrapped(2, bytes(range(8)))]}),
        message("want", "w", {0: short(model), 1: 0, 2: 900}),
        message("file", "f", {0: short(model), 1: 0, 2: len(model), 3: model}),
        message("no such file", "f", {0: short(b"z"), 4: 1}),
        message("asleep", "s", {0: 1, 1: 2, 2: EPOCH, 3: 1, 18: 3600}),
        part("model", MODEL, model),
        part("state", cbor2.loads(state), state),
        part("model of every type", typed, encode(typed)),
        part("state of every type", values, encode(values)),
        part("state with sleep", sleepy, encode(sleepy)),
    ]  # fmt: skip


def wrapped(number: int, nonce: bytes) -> bytes:
    # The next key under the one before it.
    block = mac(board_key(BOARD, number - 1), b"rotate\x00", nonce)
    return bytes(a ^ b for a, b in zip(board_key(BOARD, number), block, strict=True))


def checked_values() -> list[tuple[dict[int, object], object, int]]:
    # Code 0: the value is the property's.
    checked = [(row, value, code) for row, good, bad in TYPES for value, code in [(good, 0), *bad]]
    # A type of a later version is an error of its property alone.
    return [*checked, ({0: 9, 1: "later", 2: 8, 3: 1}, True, 2)]


def value_row(row: dict[int, object], value: object, code: int) -> dict[str, object]:
    return {"property": as_json(row), "value": as_json(value), "code": code}


def message(name: str, letter: str, fields: dict[int, object]) -> dict[str, object]:
    body = encode(fields)
    down = letter in "dcf"
    half = mac(board_key(BOARD, 1), b"d" if down else b"u")
    context = EPOCH if letter in EPOCH_SEALED else b""
    topic = topic_of(BOARD, letter)
    tag = mac(half, topic.encode(), b"\x00", context, body)[: 16 if down else 8]
    return {
        "name": name,
        "letter": letter,
        "fields": as_json(fields),
        "body": body.hex(),
        "payload": (body + tag).hex(),
    }


def part(name: str, fields: object, body: bytes) -> dict[str, object]:
    return {"name": name, "letter": "", "fields": as_json(fields), "body": body.hex(), "digest": short(body).hex()}


def topic_of(board_id: str, letter: str) -> str:
    return f"b/{hashlib.sha256(board_id.encode()).hexdigest()[:2]}/{board_id}/{letter}"


def key_row(board_id: str, number: int) -> dict[str, object]:
    key = board_key(board_id, number)
    halves = {name: mac(key, name.encode()).hex() for name in "du"}
    return {"id": board_id, "number": number, "key": key.hex(), **halves, "password": mac(key, b"m").hex()[:32]}


def claim_row(number: int, board: bytes, bridge: bytes, nonce: bytes) -> dict[str, object]:
    # One enrolment as section 12 has it: the request, and the answer that grants it.
    key = mac(ROOT, b"boardlet/1/claim\x00", number.to_bytes(4, "big"))
    public, own = (X25519PrivateKey.from_private_bytes(x).public_key().public_bytes_raw() for x in (board, bridge))
    shared = X25519PrivateKey.from_private_bytes(bridge).exchange(X25519PublicKey.from_public_bytes(public))
    place = hashlib.sha256(public).hexdigest()[:16]
    request = {0: 1, 1: nonce, 2: public, 3: bytes.fromhex("a0b765123456"), 4: "esp32", 5: "ESP32 module", 6: "0.1.0"}
    asks = encode({**request, 7: "1.29.0"})
    session = mac(key, b"enrol\x00", shared, public, own, nonce)
    inner = encode({0: BOARD, 1: number, 2: board_key(BOARD, number)})
    stream = b"".join(mac(mac(session, b"e"), bytes([n])) for n in range(1 + len(inner) // 32))
    hidden = bytes(a ^ b for a, b in zip(inner, stream, strict=False))
    wrapped = hidden + mac(mac(session, b"t"), hidden)[:16]
    gives = encode({0: 0, 1: 0, 2: own, 3: wrapped})
    return {
        "number": number,
        "key": key.hex(),
        "password": mac(key, b"m").hex()[:32],
        "board": board.hex(),
        "bridge": bridge.hex(),
        "nonce": nonce.hex(),
        "public": public.hex(),
        "own": own.hex(),
        "fingerprint": place,
        "inner": inner.hex(),
        "wrapped": wrapped.hex(),
        "request": (asks + mac(mac(key, b"u"), f"e/{place}/q".encode(), b"\x00", asks)[:8]).hex(),
        "answer": (gives + mac(mac(key, b"d"), f"e/{place}/a".encode(), b"\x00", nonce, gives)[:16]).hex(),
    }


def claims() -> list[dict[str, object]]:
    seeds = [hashlib.sha256(bytes([n])).digest() for n in range(6)]
    return [claim_row(1 + n, seeds[3 * n], seeds[3 * n + 1], seeds[3 * n + 2][:16]) for n in (0, 1)]


def vectors() -> dict[str, object]:
    ids = [BOARD, "00000000", "zzzzzzzzzzzzzzzz", "a1b2c3d4"]
    return {
        "version": 1,
        "root": ROOT.hex(),
        "board": BOARD,
        "epoch": EPOCH.hex(),
        "topics": [{"id": i, "topic": topic_of(i, "d")} for i in ids],
        "keys": [key_row(i, n) for i in ids for n in (1, 2, 2**32 - 1)],
        "cbor": [{"item": as_json(x), "hex": encode(x).hex()} for x in CBOR],
        "cbor_read_only": [{"item": as_json(v), "hex": k} for k, v in READ_ONLY.items()],
        "malformed": [{"name": k, "hex": v} for k, v in MALFORMED.items()],
        "values": [value_row(row, value, code) for row, value, code in checked_values()],
        "messages": messages(),
        "claims": claims(),
    }


def text() -> str:
    # One case a line: a diff shows which.
    def section(value: object) -> str:
        if not isinstance(value, list):
            return json.dumps(value)
        return "[\n" + ",\n".join("  " + json.dumps(row, ensure_ascii=True) for row in value) + "\n ]"

    return "{\n" + ",\n".join(f" {json.dumps(k)}: {section(v)}" for k, v in vectors().items()) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(text())
