"""One simulated board: what it holds, what it takes, what it says. Bytes in, bytes out; no socket, no clock.

It keeps values and drives nothing: a desired is applied by remembering it. All else is as PROTOCOL.md has it: seals,
epochs, sequences, revisions that never fall, the model fetched by digest, one full report an ask.
"""

from __future__ import annotations

import hmac
import os
from typing import Any, Final

import cbor2
from boardlet_wire import seal
from boardlet_wire.names import (
    DESIRED,
    EPOCH_SEALED,
    REPORTED,
    SESSION,
    WANT,
    CommandKey,
    DesiredKey,
    FileKey,
    ModelKey,
    Operation,
    PropertyKey,
    RefusalCode,
    ReportKey,
    SessionKey,
    SessionState,
    SettingKey,
    StateKey,
    WantKey,
)
from boardlet_wire.topic import topic

RECEIVE_LIMIT: Final = 1024
CHUNK_ROOM: Final = 96
FIRST_VALUES: Final = {0: False, 1: 0, 2: 20.0, 3: "off"}  # by type (section 9): what a sensor reads at first
AGENT: Final = "fleet"

Said = tuple[str, bytes]  # letter, sealed payload


class Board:
    """The board `board_id` with its 32-byte key; `models` is shared by boards that fetched one already."""

    def __init__(self, board_id: str, key: bytes, models: dict[bytes, bytes], key_number: int = 1) -> None:
        self.id, self.key_number = board_id, key_number
        self.password = seal.half_key(key, seal.PASSWORD).hex()[:32]
        self._down, self._up = seal.half_key(key, seal.DOWN), seal.half_key(key, seal.UP)
        self._models = models
        self.topics = {letter: topic(board_id, letter).encode() for letter in "srwdcf"}
        self.epoch, self.sequence, self.boots = b"", 0, 1
        self.model = b""
        self.sensors: list[int] = []  # indexes that the board itself changes
        self.values: dict[int, Any] = {}
        self.unsaid: set[int] = set()  # indexes whose value was not told yet
        self.applied: list[Any] | None = None  # uid, revision, digest, generation
        self.refused: list[Any] | None = None
        self.heartbeat_s = 60
        self.switches = False
        """A new model runs: the connection has to begin a new epoch."""
        self._fetching: tuple[bytes, bytearray, list[Any], dict[int, Any]] | None = None

    def begin(self) -> None:
        """A new connection: a new epoch."""
        self.epoch, self.sequence, self.switches, self._fetching = os.urandom(8), 0, False, None
        self.unsaid.clear()  # the full report will say it all

    def session(self, state: SessionState, uptime_s: int = 0) -> bytes:
        """A sealed session: the will, the birth, or the word that it goes."""
        body: dict[int, Any] = {
            SessionKey.VERSION: 1,
            SessionKey.STATE: int(state),
            SessionKey.EPOCH: self.epoch,
            SessionKey.KEY_NUMBER: self.key_number,
        }
        if state is SessionState.HERE:
            body |= {SessionKey.BOOT_COUNT: self.boots, SessionKey.AGENT: AGENT, SessionKey.PORT: "fleet"}
            body |= {SessionKey.RECEIVE_LIMIT: RECEIVE_LIMIT, SessionKey.SAFE_MODE: False}
            if self.model:
                body[SessionKey.MODEL] = self.model
            if self.applied:
                body[SessionKey.APPLIED] = self.applied
        return self._seal(SESSION, body)

    def received(self, letter: str, payload: bytes) -> list[Said]:
        """A message from the bridge, its seal checked; what is to be said at once."""
        body = self._open(letter, payload)
        if body is None:
            return []
        fields = cbor2.loads(body)
        if letter == DESIRED:
            return self._desired(fields)
        if letter == "f":
            return self._file(fields)
        return []

    def asked(self, payload: bytes) -> tuple[bytes, bool] | None:
        """The nonce of a command, and whether the session is to be published before; None for another's bytes."""
        body = self._open("c", payload)
        if body is None:
            return None
        fields = cbor2.loads(body)
        return fields[CommandKey.NONCE], fields.get(CommandKey.OPERATION) == Operation.INTRODUCE

    def full(self, nonce: bytes, uptime_s: int) -> Said:
        """The full report that answers a nonce."""
        body: dict[int, Any] = {ReportKey.UPTIME_S: uptime_s, ReportKey.NONCE: nonce, ReportKey.HEALTH: 0}
        body |= {ReportKey.APPLIED: self.applied or 0, ReportKey.COUNTERS: {0: 0, 1: 0, 2: 0, 3: 0}}
        if self.refused:
            body[ReportKey.REFUSED] = self.refused
        self.unsaid.clear()
        return self._report({**body, **self.values})

    def heartbeat(self, uptime_s: int) -> Said:
        """What is said after a heartbeat of silence."""
        return self._report({ReportKey.UPTIME_S: uptime_s, ReportKey.APPLIED: self.applied[1] if self.applied else 0})

    def sense(self, index: int) -> None:
        """A sensor reads something else than before."""
        self.values[index] = _next(self.values[index])
        self.unsaid.add(index)

    def changes(self) -> Said:
        """All that was sensed and not told yet."""
        said = {index: self.values[index] for index in self.unsaid}
        self.unsaid.clear()
        return self._report(said)

    # Desired and model
    def _desired(self, fields: dict[int, Any]) -> list[Said]:
        raw = fields[DesiredKey.STATE]
        asked = [fields[DesiredKey.UID], fields[DesiredKey.REVISION], seal.digest(raw), fields[DesiredKey.GENERATION]]
        if self.applied and asked[1] == self.applied[1]:
            if asked[2] != self.applied[2]:
                self.refused = [asked[1], asked[2], int(RefusalCode.CONFLICT)]
                return [self._report({ReportKey.REFUSED: self.refused})]
            self.applied = asked
            return [self._report({ReportKey.APPLIED: asked})]
        if self.applied and asked[1] < self.applied[1]:
            return []
        return self._take(asked, cbor2.loads(raw))

    def _take(self, asked: list[Any], state: dict[int, Any]) -> list[Said]:
        wanted = state[StateKey.MODEL]
        if wanted != self.model:
            if wanted not in self._models:
                self._fetching = (wanted, bytearray(), asked, state)
                return [self._want()]
            self.switches = True
            self._load(wanted)
        self.applied, self.refused = asked, None
        self.heartbeat_s = (state.get(StateKey.SETTINGS) or {}).get(SettingKey.HEARTBEAT_S, 60)
        changed = {i: v for i, v in state.items() if i >= 0 and self.values.get(i) != v}
        self.values.update(changed)
        return [] if self.switches else [self._report({ReportKey.APPLIED: asked, **changed})]

    def _load(self, digest: bytes) -> None:
        self.model = digest
        rows = cbor2.loads(self._models[digest])[ModelKey.PROPERTIES]
        read_only = {r[PropertyKey.INDEX]: r[PropertyKey.TYPE] for r in rows if not r.get(PropertyKey.ACCESS)}
        self.sensors = list(read_only)
        self.values = {i: FIRST_VALUES.get(kind) for i, kind in read_only.items()}

    def _want(self) -> Said:
        assert self._fetching is not None
        digest, data = self._fetching[:2]
        want: dict[int, Any] = {
            WantKey.DIGEST: digest,
            WantKey.OFFSET: len(data),
            WantKey.LENGTH: RECEIVE_LIMIT - CHUNK_ROOM,
        }
        return WANT, self._seal(WANT, want)

    def _file(self, fields: dict[int, Any]) -> list[Said]:
        if self._fetching is None or fields[FileKey.DIGEST] != self._fetching[0] or FileKey.ERROR in fields:
            return []
        digest, data, asked, state = self._fetching
        if fields[FileKey.OFFSET] != len(data):
            return []
        data += fields[FileKey.DATA]
        if len(data) < fields[FileKey.TOTAL]:
            return [self._want()]
        self._fetching = None
        if seal.digest(bytes(data)) != digest:
            return []
        self._models[digest] = bytes(data)
        return self._take(asked, state)

    # Seals
    def _report(self, body: dict[int, Any]) -> Said:
        body[ReportKey.SEQUENCE] = self.sequence
        self.sequence += 1
        return REPORTED, self._seal(REPORTED, body)

    def _seal(self, letter: str, fields: dict[int, Any]) -> bytes:
        body = cbor2.dumps({int(key): value for key, value in fields.items()}, canonical=True)
        context = self.epoch if letter in EPOCH_SEALED else b""
        sealed = self.topics[letter] + b"\x00" + context + body
        return body + hmac.digest(self._up, sealed, "sha256")[: seal.UP_TAG]

    def _open(self, letter: str, payload: bytes) -> bytes | None:
        body, tag = payload[: -seal.DOWN_TAG], payload[-seal.DOWN_TAG :]
        context = self.epoch if letter in EPOCH_SEALED else b""
        sealed = self.topics[letter] + b"\x00" + context + body
        good = hmac.compare_digest(hmac.digest(self._down, sealed, "sha256")[: seal.DOWN_TAG], tag)
        return body if body and good else None


def _next(value: Any) -> Any:
    # Numbers stay exact in half precision, so that what the object shows can be compared with what was sent.
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return (value + 0.25) % 64
    if isinstance(value, int):
        return (value + 1) % 1000
    return "on" if value == "off" else "off"
