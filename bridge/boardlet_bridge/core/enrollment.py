"""Enrolment: what a board without an identity says of itself, what follows, and the answer (PROTOCOL.md section 12).

A request is an Enrollment object, which names hardware and public part, so that an approval is one of exactly this key.
What is decided follows from the objects alone: the bridge keeps nothing of it, and reads them anew for every request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from boardlet_wire import claim, seal
from boardlet_wire.names import GrantCode, GrantKey, IdentityKey, RequestKey

from boardlet_bridge.core.codec import Fields, MalformedError, encode
from boardlet_bridge.core.credential import FIRST_KEY_NUMBER, KeyRing, mac

REQUEST, ANSWER = "q", "a"
VERSION: Final = 1
NONCE_BYTES: Final = 16
PUBLIC_BYTES: Final = 32
MAX_HARDWARE_BYTES: Final = 16
MAX_REQUEST_BYTES: Final = 512
# What crds/enrollments.yaml allows of a stranger's words.
MAX_TEXT: Final = {"port": 16, "machine": 64, "agent": 16, "micropython": 16}
SLOW_S: Final = 300  # a board that was told no asks again after this time: somebody may change his mind

Reason = Literal[
    "Pending", "Contested", "Granted", "Enrolled", "Denied", "ModelNotFound", "BoardExists", "CreateFailed"
]

WAITS: Final = ("Pending", "Contested", "Granted")
LABEL: Final = "boardlet.dev/enrollment"  # on a Board, the Enrollment that it was made for
GRANTED: Final = ("boardName", "boardID", "keyNumber", "approvedBy")  # of a status
_STRANGE: Final = re.compile("[^ -~]")


@dataclass(frozen=True, slots=True)
class ClaimKeys:
    """A site's claim: both directions' keys, its password at the broker, and what an answer's key is made with."""

    key: bytes = field(repr=False)
    up: bytes = field(repr=False)
    down: bytes = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def of(cls, ring: KeyRing, number: int) -> ClaimKeys:
        key = ring.claim_key(number)
        return cls(key, mac(key, seal.UP), mac(key, seal.DOWN), mac(key, seal.PASSWORD).hex()[:32])


@dataclass(frozen=True, slots=True)
class Request:
    """One request, rightly sealed with the claim; its words are the stranger's, cut and cleaned."""

    nonce: bytes
    public: bytes
    hardware: str
    words: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        return claim.fingerprint(self.public)

    @property
    def name(self) -> str:
        """The name of its Enrollment."""
        return f"{self.hardware}-{self.fingerprint}"

    @property
    def spec(self) -> dict[str, Any]:
        """As an Enrollment holds it."""
        said = {"hardware": self.hardware, "fingerprint": self.fingerprint, "publicKey": self.public.hex()}
        return {**said, **{name: text for name, text in self.words.items() if text}}


def read_request(keys: ClaimKeys, fingerprint: str, payload: bytes) -> Request | None:
    """The request in a payload, None where the claim did not seal it; raises MalformedError."""
    if not seal.UP_TAG < len(payload) <= MAX_REQUEST_BYTES:
        raise MalformedError(f"a request of {len(payload)} bytes, at most {MAX_REQUEST_BYTES} are read")
    body = seal.verify(keys.up, f"e/{fingerprint}/{REQUEST}", b"", payload, seal.UP_TAG)
    if body is None:
        return None
    fields = Fields.decode(body)
    fields.integer(RequestKey.VERSION, VERSION, VERSION)
    public = fields.octets(RequestKey.PUBLIC, PUBLIC_BYTES)
    if claim.fingerprint(public) != fingerprint:
        raise MalformedError("the topic is that of another public part")
    hardware = fields.octets(RequestKey.HARDWARE)
    if not 0 < len(hardware) <= MAX_HARDWARE_BYTES:
        raise MalformedError(f"key {int(RequestKey.HARDWARE)} is not 1 to {MAX_HARDWARE_BYTES} bytes")
    words = {name: _word(fields, RequestKey[name.upper()], most) for name, most in MAX_TEXT.items()}
    return Request(fields.octets(RequestKey.NONCE, NONCE_BYTES), public, hardware.hex(), words)


def _word(fields: Fields, key: RequestKey, most: int) -> str:
    text = fields.map.get(key, "")
    if type(text) is not str:
        raise MalformedError(f"key {int(key)} is not text")
    return _STRANGE.sub("?", text[:most]).strip()


def answer(keys: ClaimKeys, request: Request, code: GrantCode, wait_s: int) -> bytes:
    """The sealed answer that says no, or not yet."""
    return _sealed(keys, request, {GrantKey.CODE: int(code), GrantKey.WAIT_S: wait_s})


def grant(keys: ClaimKeys, request: Request, secret: bytes, identity: tuple[str, int, bytes]) -> bytes:
    """The sealed answer with the identity (id, key number, key) in it, which only this board can open.

    `secret` is 32 random bytes for this one answer. Raises MalformedError for a public part that is none.
    """
    try:
        shared = claim.x25519(secret, request.public)
    except ValueError as error:
        raise MalformedError("the public part is no point that hides anything") from error
    own = claim.x25519(secret, claim.BASE)
    key = claim.agree(keys.key, shared, request.public, own, request.nonce)
    board_id, number, board_key = identity
    inner = encode({IdentityKey.ID: board_id, IdentityKey.NUMBER: number, IdentityKey.KEY: board_key})
    fields: dict[int, object] = {GrantKey.CODE: int(GrantCode.GRANTED), GrantKey.WAIT_S: 0}
    return _sealed(keys, request, {**fields, GrantKey.PUBLIC: own, GrantKey.WRAPPED: claim.wrap(key, inner)})


def _sealed(keys: ClaimKeys, request: Request, fields: Mapping[int, object]) -> bytes:
    body = encode({int(key): value for key, value in fields.items()})
    topic = claim.topic(request.public, ANSWER)
    return body + seal.tag(keys.down, topic, request.nonce, body, seal.DOWN_TAG)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an approval says: the Board's name, its model, perhaps its id; who said it."""

    board: str
    model: str
    board_id: str
    by: Literal["Person", "Policy"]


def of_person(obj: Mapping[str, Any]) -> Wanted | None:
    """What a person approved, None where nobody has."""
    spec = obj["spec"]
    if spec.get("approved") is not True:
        return None
    return Wanted(spec["boardName"], spec["modelRef"]["name"], spec.get("boardID", ""), "Person")


def denied(obj: Mapping[str, Any]) -> bool:
    """Whether a person has said no."""
    return obj["spec"].get("approved") is False


def reason_of(obj: Mapping[str, Any]) -> str:
    """The reason of condition Enrolled, "" before the first."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Enrolled":
            return str(condition.get("reason"))
    return ""


def is_open(obj: Mapping[str, Any]) -> bool:
    """Whether it waits for something; what is done or denied does not count against the most."""
    return reason_of(obj) != "Enrolled" and not denied(obj)


def contested(obj: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The other Enrollments that say they are the same hardware, and were not denied."""
    own = obj["spec"]["request"]
    found = []
    for other in others:
        said = other["spec"].get("request") or {}
        if said.get("hardware") == own["hardware"] and said.get("publicKey") != own["publicKey"] and not denied(other):
            found.append(other)
    return found


def given(
    obj: Mapping[str, Any], board: Mapping[str, Any], number: int, others: Sequence[Mapping[str, Any]], firsts: set[int]
) -> str:
    """The name of another Enrollment whose board was sent this key of the Board, "" where there is none.

    What was sent may be held, whatever has been decided since, and without a word of that board. `firsts` are the first
    key numbers of the root keys, under which the bridge makes Boards: a label tells for whom, though that one is gone.
    """
    own, board_id = obj["metadata"]["name"], board["spec"]["boardID"]
    for other in others:
        said = other.get("status") or {}
        sent = said.get("boardID") == board_id and said.get("keyNumber") == number
        if sent and other["metadata"]["name"] != own:
            return str(other["metadata"]["name"])
    made_for = (board["metadata"].get("labels") or {}).get(LABEL, own)
    return str(made_for) if made_for != own and number in firsts else ""


def next_key(board: str, used: int) -> str:
    """What to set for no chip that has a Board's key to be taken for it any more."""
    return f"set the spec.credential of Board {board} to {{keyNumber: {used + 1}, revokedKeyNumber: {used}}}"


def denial(obj: Mapping[str, Any]) -> str:
    """What is said of one that a person has denied: a key that was sent is not taken back by that."""
    said, told = obj.get("status") or {}, "spec.approved is false: the board is told so when it asks"
    if "keyNumber" not in said:
        return told
    key = next_key(said["boardName"], said["keyNumber"])
    return f"{told}; it was sent key {said['keyNumber']} of Board {said['boardName']} before: to shut it out, {key}"


@dataclass(frozen=True, slots=True)
class Key:
    """The key number that a Board may be given, 0 with the reason why it may get none; or that it has all."""

    number: int
    why: str = ""
    spoken: bool = False


def key_for(board: Mapping[str, Any], board_id: str, spoken: int, lowest: int = FIRST_KEY_NUMBER) -> Key:
    """Which key of an existing Board may be given away: never one that a board has spoken under.

    So no two chips ever hold the same key. `spoken` is the highest number that the bridge itself has heard, `lowest`
    the first one that there is a root key for.
    """
    name, spec = board["metadata"]["name"], board["spec"]
    if board_id and spec["boardID"] != board_id:
        return Key(0, f"Board {name} has spec.boardID {spec['boardID']}, and the approval says {board_id}")
    credential = spec.get("credential") or {}
    wanted = int(credential.get("keyNumber") or FIRST_KEY_NUMBER)
    revoked = int(credential.get("revokedKeyNumber") or 0)
    said = ((board.get("status") or {}).get("board") or {}).get("keyNumber")
    proven = max(spoken, said if type(said) is int else 0)
    # One above the first that is not revoked is under way to the board that there is, over the air.
    under_way = wanted if wanted > max(revoked, lowest - 1) + 1 else 0
    used = max(revoked, proven, lowest - 1, under_way)
    if wanted > used:
        return Key(wanted)
    why = f"Board {name} has spoken under its key {wanted}, or it is revoked, and a key is given once: to put another "
    why += f"chip in its place, {next_key(name, used)}"
    return Key(0, why, spoken=proven >= wanted)


def new_board_object(namespace: str, wanted: Wanted, board_id: str, number: int, enrollment: str) -> dict[str, Any]:
    """The Board of a new chip."""
    spec: dict[str, Any] = {"boardID": board_id, "modelRef": {"name": wanted.model}}
    if number > FIRST_KEY_NUMBER:  # the first one of the site's present root key
        spec["credential"] = {"keyNumber": number, "revokedKeyNumber": number - 1}
    label = {LABEL: enrollment}
    return {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "Board",
        "metadata": {"namespace": namespace, "name": wanted.board, "labels": label},
        "spec": spec,
    }


def new_object(namespace: str, request: Request) -> dict[str, Any]:
    """The Enrollment of a request."""
    return {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "Enrollment",
        "metadata": {"namespace": namespace, "name": request.name},
        "spec": {"request": request.spec},
    }


def truth(reason: Reason) -> str:
    """The status of condition Enrolled that goes with a reason."""
    return "True" if reason == "Enrolled" else "Unknown" if reason in WAITS else "False"


def status(
    obj: Mapping[str, Any],
    reason: Reason,
    message: str,
    now: str,
    *,
    board: tuple[str, str, int] | None = None,
    by: str = "",
) -> dict[str, Any] | None:
    """The body of a status write, None where it would change nothing; `board` is name, id and key number."""
    before = obj.get("status") or {}
    after: dict[str, Any] = {key: before[key] for key in GRANTED if key in before}
    if board is not None:
        after |= {"boardName": board[0], "boardID": board[1], "keyNumber": board[2], "approvedBy": by}
    was: Mapping[str, Any] = next((c for c in before.get("conditions") or () if c.get("type") == "Enrolled"), {})
    since = was.get("lastTransitionTime", now) if was.get("status") == truth(reason) else now
    after["conditions"] = [
        {
            "type": "Enrolled",
            "status": truth(reason),
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
            "observedGeneration": obj["metadata"].get("generation", 0),
        }
    ]
    if after == {key: value for key, value in before.items() if value != {}}:
        return None
    meta = obj["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
    return {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Enrollment", "metadata": kept, "status": after}
