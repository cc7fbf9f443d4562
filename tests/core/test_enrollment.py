"""Enrolment's decisions and bytes: what the core reads of a stranger, and who can open what it answers."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from boardlet_bridge.core import enrollment
from boardlet_bridge.core.codec import Fields, MalformedError, encode
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.enrollment import ClaimKeys, Request, key_for, read_request
from boardlet_bridge.core.enrollment_policy import Policy, PolicyInvalid
from boardlet_wire import claim, seal
from boardlet_wire.keys import board_key, claim_key
from boardlet_wire.names import GrantCode, GrantKey, IdentityKey
from hypothesis import given
from hypothesis import strategies as st

RING = KeyRing(bytes(range(32)), bytes(16))
KEYS = ClaimKeys.of(RING, 1)
SECRET, OTHER = (hashlib.sha256(text).digest() for text in (b"board", b"other"))
PUBLIC = claim.x25519(SECRET, claim.BASE)
FINGERPRINT = claim.fingerprint(PUBLIC)
NONCE = bytes(range(16))
BODY: dict[int, object] = {0: 1, 1: NONCE, 2: PUBLIC, 3: b"\xa0\xb7", 4: "esp32", 5: "ESP32", 6: "0.1.0", 7: "1.29.0"}
IDENTITY = "k7m2q9xa", 1, board_key(RING.root, "k7m2q9xa", 1)


def sealed(body: dict[int, object] | bytes, keys: ClaimKeys = KEYS, place: str = FINGERPRINT) -> bytes:
    raw = body if isinstance(body, bytes) else encode(body)
    return raw + seal.tag(keys.up, f"e/{place}/q", b"", raw, seal.UP_TAG)


def read(body: dict[int, object]) -> Request | None:
    return read_request(KEYS, FINGERPRINT, sealed(body))


def opened(answer: bytes, request: Request, secret: bytes = SECRET, key: bytes | None = None) -> dict[int, Any] | None:
    """What somebody with this secret reads in an answer, None where the wrapping does not open."""
    body = seal.verify(KEYS.down, f"e/{FINGERPRINT}/a", request.nonce, answer, seal.DOWN_TAG)
    assert body is not None
    fields = Fields.decode(body)
    own = fields.octets(GrantKey.PUBLIC)
    agreed = claim.agree(key or KEYS.key, claim.x25519(secret, own), request.public, own, request.nonce)
    inner = claim.unwrap(agreed, fields.octets(GrantKey.WRAPPED))
    return None if inner is None else Fields.decode(inner).map


def test_a_board_reads_its_identity() -> None:
    """What the bridge wraps for a request is id, number and key, and the claim's key is that of the wire."""
    request = read(BODY)
    assert request is not None
    assert KEYS.key == claim_key(RING.root, 1)
    granted = opened(enrollment.grant(KEYS, request, OTHER, IDENTITY), request)
    assert granted == {IdentityKey.ID: IDENTITY[0], IdentityKey.NUMBER: 1, IdentityKey.KEY: IDENTITY[2]}


def test_who_has_the_claim_alone_reads_no_identity() -> None:
    """Neither the claim with another secret opens an answer, nor the board's secret with another claim."""
    request = read(BODY)
    assert request is not None
    answer = enrollment.grant(KEYS, request, OTHER, IDENTITY)
    assert IDENTITY[2] not in answer
    assert opened(answer, request, secret=hashlib.sha256(b"thief").digest()) is None
    assert opened(answer, request, key=claim_key(RING.root, 2)) is None


def test_an_answer_is_for_one_request() -> None:
    """Under another nonce, another board's topic, or with a bit turned, an answer's seal is wrong."""
    request = read(BODY)
    assert request is not None
    answer = enrollment.answer(KEYS, request, GrantCode.PENDING, 15)
    topic = f"e/{FINGERPRINT}/a"
    assert seal.verify(KEYS.down, topic, NONCE, answer, seal.DOWN_TAG) is not None
    assert seal.verify(KEYS.down, topic, bytes(16), answer, seal.DOWN_TAG) is None
    assert seal.verify(KEYS.down, "e/0000000000000000/a", NONCE, answer, seal.DOWN_TAG) is None
    for at in range(len(answer)):
        broken = bytearray(answer)
        broken[at] ^= 1
        assert seal.verify(KEYS.down, topic, NONCE, broken, seal.DOWN_TAG) is None


def test_a_claim_opens_no_board_and_no_other_claim() -> None:
    """Claim numbers and boards have keys of their own: what one seals is nothing to another."""
    other = ClaimKeys.of(RING, 2)
    assert read_request(other, FINGERPRINT, sealed(BODY)) is None
    keys = RING.board("k7m2q9xa")
    assert len({KEYS.up, KEYS.down, other.up, other.down, keys.up, keys.down}) == 6


def test_a_strangers_words_are_cut_and_cleaned() -> None:
    """Escape sequences, other alphabets and long words reach no object; the name is made of hex digits alone."""
    request = read({**BODY, 5: "\x1b[2J" + "x" * 200, 6: "ü\n", 4: ""})
    assert request is not None
    assert request.words == {"port": "", "machine": "?[2J" + "x" * 60, "agent": "??", "micropython": "1.29.0"}
    assert request.name == f"a0b7-{FINGERPRINT}"
    assert "port" not in request.spec


@pytest.mark.parametrize(
    "change",
    [{0: 2}, {1: b"short"}, {2: bytes(31)}, {3: b""}, {3: bytes(17)}, {3: "a0"}, {5: b"bytes"}, {2: bytes(32)}],
)
def test_what_is_no_request_is_malformed(change: dict[int, object]) -> None:
    """A wrong version, length or type, or a public part that is not the topic's, is refused with its key."""
    with pytest.raises(MalformedError):
        read({**BODY, **change})


@given(st.binary(max_size=600))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    """Whatever the claim seals is a request or malformed; whatever it does not is nothing."""
    for payload in (raw, sealed(raw)):
        with contextlib.suppress(MalformedError):
            assert read_request(KEYS, FINGERPRINT, payload) is None or payload != raw


def test_a_public_part_that_hides_nothing_is_refused() -> None:
    """A point of low order, with which everybody would know the result, is never granted anything."""
    place = claim.fingerprint(bytes(32))
    request = read_request(KEYS, place, sealed({**BODY, 2: bytes(32)}, place=place))
    assert request is not None
    with pytest.raises(MalformedError):
        enrollment.grant(KEYS, request, OTHER, IDENTITY)


def board(key: int = 1, revoked: int = 0, spoken: int = 0, **spec: Any) -> dict[str, Any]:
    credential = {"keyNumber": key, "revokedKeyNumber": revoked}
    status = {"board": {"keyNumber": spoken}} if spoken else {}
    full = {"boardID": "k7m2q9xa", "credential": credential, **spec}
    return {"metadata": {"name": "g7"}, "spec": full, "status": status}


@pytest.mark.parametrize(
    ("obj", "heard", "number"),
    [
        (board(), 0, 1),
        (board(2, 1), 0, 2),
        (board(2, 1, spoken=1), 0, 2),
        (board(spoken=1), 0, 0),
        (board(), 1, 0),
        (board(1, 1), 0, 0),
        (board(2, 1, spoken=2), 0, 0),
        (board(boardID="p4w8z1vc"), 0, 0),
    ],
)
def test_a_key_is_given_once(obj: dict[str, Any], heard: int, number: int) -> None:
    """A Board's key may be given only while neither object nor bridge know it spoken or revoked; else it says why."""
    key = key_for(obj, "k7m2q9xa", heard)
    assert key.number == number
    assert bool(key.why) == (number == 0)


def test_no_key_of_a_root_that_was_removed_is_given() -> None:
    """After a root key was replaced, a new Board gets the first number of the present one, and an old Board has to."""
    assert key_for(board(), "", 0, lowest=5).number == 0
    assert "keyNumber: 5" in key_for(board(), "", 0, lowest=5).why
    assert key_for(board(5, 4), "", 0, lowest=5).number == 5
    wanted = enrollment.Wanted("g7", "greenhouse", "", "Person")
    made = enrollment.new_board_object("north", wanted, "k7m2q9xa", 5, "e")
    assert key_for(made, "k7m2q9xa", 0, lowest=5).number == 5


def enrolment(hardware: str, public: str, reason: str = "Pending", **more: Any) -> dict[str, Any]:
    spec = {"request": {"hardware": hardware, "publicKey": public}, **more.pop("spec", {})}
    return {
        "metadata": {"name": f"{hardware}-{public}", "generation": 1},
        "spec": spec,
        "status": {**more, "conditions": [{"type": "Enrolled", "status": "Unknown", "reason": reason}]},
    }


POLICY = {"model": "greenhouse", "hardware": ["A0:B7", "a0b8"], "quota": 1, "until": "2026-12-01T00:00:00Z"}
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_policy_approves_what_it_lists_and_no_more() -> None:
    """Listed hardware, within quota and time, uncontested; what it has granted stays granted."""
    policy = Policy.of(POLICY)
    mine = enrolment("a0b7", "aa")
    wanted = policy.approves(mine, [mine], NOW)
    assert wanted is not None
    assert (wanted.board, wanted.model, wanted.by) == ("greenhouse-a0b7", "greenhouse", "Policy")
    assert policy.approves(enrolment("a0b9", "aa"), [], NOW) is None
    assert policy.approves(mine, [mine], NOW + timedelta(days=60)) is None
    assert policy.approves(mine, [mine, enrolment("a0b7", "bb")], NOW) is None, "two say they are this hardware"
    assert policy.approves(mine, [mine, enrolment("a0b7", "bb", spec={"approved": False})], NOW) is not None
    spent = enrolment("a0b8", "cc", "Enrolled", approvedBy="Policy")
    assert policy.approves(mine, [mine, spent], NOW) is None, "the quota is spent"
    granted = enrolment("a0b7", "aa", "Granted", approvedBy="Policy")
    assert policy.approves(granted, [granted], NOW) is not None, "it is sent again"


@pytest.mark.parametrize(
    "change",
    [{"model": 7}, {"hardware": "a0b7"}, {"hardware": ["xyz"]}, {"quota": -1}, {"quota": True}, {"until": "soon"},
     {"until": None}, {"colour": "red"}, {"namePrefix": "G_"}],
)  # fmt: skip
def test_a_wrong_policy_says_what_is_wrong(change: dict[str, object]) -> None:
    """Whatever cannot be meant is refused as a whole, and approves nothing."""
    with pytest.raises(PolicyInvalid):
        Policy.of({**POLICY, **change})
    with pytest.raises(PolicyInvalid):
        Policy.of("all")


def test_a_status_is_written_on_change_alone() -> None:
    """The same reason and message again are no write; a time moves with the condition's status alone."""
    obj = enrolment("a0b7", "aa")
    obj["metadata"] |= {"namespace": "north", "uid": "u", "resourceVersion": "1"}
    first = enrollment.status(obj, "Pending", "waits", "2026-11-01T00:00:00Z")
    assert first is not None
    obj["status"] = first["status"]
    assert enrollment.status(obj, "Pending", "waits", "2026-11-02T00:00:00Z") is None
    later = enrollment.status(obj, "Granted", "sent", "2026-11-02T00:00:00Z", board=("g7", "k7m2q9xa", 1), by="Person")
    assert later is not None
    assert later["status"]["conditions"][0]["lastTransitionTime"] == "2026-11-01T00:00:00Z"
    obj["status"] = later["status"]
    done = enrollment.status(obj, "Enrolled", "spoken", "2026-11-03T00:00:00Z")
    assert done is not None
    assert done["status"]["boardName"] == "g7"
    assert done["status"]["conditions"][0]["lastTransitionTime"] == "2026-11-03T00:00:00Z"
