# Every golden vector through boardlet_wire; the same file runs on CPython and MicroPython, and prints what it proved.
# usage: interpreter vectors_check.py vectors.json   (boardlet_wire on the path)
import json
import sys
from binascii import hexlify, unhexlify

from boardlet_wire import cbor, claim, keys, seal, topic


def item(obj):
    if isinstance(obj, list):
        return [item(x) for x in obj]
    if isinstance(obj, dict):
        if "b" in obj:
            return unhexlify(obj["b"])
        if "f" in obj:
            return float(obj["f"])
        return {key: item(value) for key, value in obj["m"]}
    return obj


def close(a, b):
    # A float on the wire is single precision, and so is every float of a 32-bit MicroPython.
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b))  # noqa: B905 - MicroPython's zip has no strict
    if isinstance(a, dict) and isinstance(b, dict):
        return sorted(a) == sorted(b) and all(close(a[k], b[k]) for k in a)
    return type(a) == type(b) and a == b  # noqa: E721 - True is not 1 on the wire


def same_bytes(fields, raw):
    # Maps may come in any order of keys; the length and what is read back must be the same.
    out = cbor.dumps(fields)
    return len(out) == len(raw) and close(cbor.loads(out), cbor.loads(raw))


def refused(raw):
    try:
        cbor.loads(raw)
    except ValueError:
        return True
    return False


def check(name, right, failures):
    if not right:
        failures.append(name)


def run(path):
    with open(path) as f:
        v = json.load(f)
    bad = []
    count = 0
    for row in v["topics"]:
        check("topic " + row["id"], topic.topic(row["id"], "d") == row["topic"], bad)
        count += 1
    root = unhexlify(v["root"])
    for row in v["keys"]:
        key = keys.board_key(root, row["id"], row["number"])
        check("key", hexlify(key).decode() == row["key"], bad)
        for half in ("d", "u"):
            check("half key", hexlify(seal.half_key(key, half.encode())).decode() == row[half], bad)
        check("password", hexlify(seal.half_key(key, b"m")).decode()[:32] == row["password"], bad)
        count += 1
    for row in v["cbor"]:
        check(
            "write " + row["hex"],
            cbor.dumps(item(row["item"])) == unhexlify(row["hex"])
            or (
                isinstance(row["item"], dict)
                and "m" in row["item"]
                and same_bytes(item(row["item"]), unhexlify(row["hex"]))
            ),
            bad,
        )
        count += 1
    for row in v["cbor"] + v["cbor_read_only"]:
        check("read " + row["hex"], close(cbor.loads(unhexlify(row["hex"])), item(row["item"])), bad)
        count += 1
    for row in v["malformed"]:
        check("malformed " + row["name"], refused(unhexlify(row["hex"])), bad)
        count += 1
    for row in v["values"]:
        check_value(row, bad)
        count += 1
    for row in v["messages"]:
        check_message(v, root, row, bad)
        count += 1
    for row in v["claims"]:
        check_claim(root, row, bad)
        count += 1
    if bad:
        print("FAILED:", ", ".join(bad))
        sys.exit(1)
    print(count, "vectors passed")


def check_value(row, bad):
    # Only where the board's own check is at hand, which needs MicroPython's const.
    try:
        from boardlet.model import check as code_of
    except ImportError:
        return
    code = code_of(item(row["property"]), item(row["value"]))
    check("value {} is code {}".format(row, code), code == row["code"], bad)  # noqa: UP032


def check_message(v, root, row, bad):
    body = unhexlify(row["body"])
    check("fields of " + row["name"], close(cbor.loads(body), item(row["fields"])), bad)
    check("body of " + row["name"], same_bytes(item(row["fields"]), body), bad)
    if not row["letter"]:
        check("digest of " + row["name"], hexlify(seal.digest(body)).decode() == row["digest"], bad)
        return
    down = row["letter"] in "dcf"
    half = seal.half_key(keys.board_key(root, v["board"], 1), seal.DOWN if down else seal.UP)
    size = seal.DOWN_TAG if down else seal.UP_TAG
    context = unhexlify(v["epoch"]) if row["letter"] in "rwfatli" else b""
    name = topic.topic(v["board"], row["letter"])
    payload = unhexlify(row["payload"])
    check("seal of " + row["name"], seal.tag(half, name, context, body, size) == payload[len(body) :], bad)
    opened = seal.verify(half, name, context, payload, size)
    check("opening " + row["name"], opened is not None and bytes(opened) == body, bad)
    for i in range(len(payload)):
        broken = bytearray(payload)
        broken[i] ^= 1
        check("forged " + row["name"], seal.verify(half, name, context, broken, size) is None, bad)


def check_claim(root, row, bad):
    r = {name: unhexlify(text) for name, text in row.items() if name not in ("number", "password", "fingerprint")}
    key = keys.claim_key(root, row["number"])
    check("claim key", key == r["key"], bad)
    check("claim password", hexlify(seal.half_key(key, seal.PASSWORD)).decode()[:32] == row["password"], bad)
    check("public part", claim.x25519(r["board"], claim.BASE) == r["public"], bad)
    check("fingerprint", claim.fingerprint(r["public"]) == row["fingerprint"], bad)
    shared = claim.x25519(r["board"], r["own"])
    check("agreement", shared == claim.x25519(r["bridge"], r["public"]), bad)
    session = claim.agree(key, shared, r["public"], r["own"], r["nonce"])
    check("wrapping", claim.wrap(session, r["inner"]) == r["wrapped"], bad)
    check("unwrapping", claim.unwrap(session, r["wrapped"]) == r["inner"], bad)
    for i in range(len(r["wrapped"])):
        broken = bytearray(r["wrapped"])
        broken[i] ^= 1
        check("forged wrapping", claim.unwrap(session, broken) is None, bad)
    up, down = seal.half_key(key, seal.UP), seal.half_key(key, seal.DOWN)
    place = "e/" + row["fingerprint"]
    asks = seal.verify(up, place + "/q", b"", r["request"], seal.UP_TAG)
    check("request", asks is not None and cbor.loads(asks)[2] == r["public"], bad)
    gives = seal.verify(down, place + "/a", r["nonce"], r["answer"], seal.DOWN_TAG)
    check("answer", gives is not None and cbor.loads(gives)[3] == r["wrapped"], bad)
    check("answer to another request", seal.verify(down, place + "/a", bytes(16), r["answer"], 16) is None, bad)
    check("a zero result", zero_is_refused(r["board"]), bad)


def zero_is_refused(secret):
    try:
        claim.x25519(secret, bytes(32))
    except ValueError:
        return True
    return False


run(sys.argv[1])
