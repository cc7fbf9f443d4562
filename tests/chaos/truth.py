"""What must hold at every moment, judged from what really happened to the silicon, the broker and the objects.

Nothing here asks the code under test what it believes. A violation is an `UntruthError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from boardlet_wire.seal import DOWN_TAG, digest
from silicon import Silicon

REVERTED = 5
HERE = 1
READ_BACK_MS = 1_500  # a pin is read once a second
DYING_MS = 200_000  # connections take 1.5 keep-alives to die, on both sides


class UntruthError(AssertionError):
    """A promise is broken; the message says which."""


def wire_uid(uid: str) -> bytes:
    return bytes.fromhex(uid.replace("-", ""))[:6]


def fits(prop: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is one of the property's, in the words of the model."""
    kind = prop["type"]
    if kind == "Boolean":
        return isinstance(value, bool)
    if kind == "String":
        return isinstance(value, str) and len(value.encode()) <= prop.get("maxLength", 64)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(prop.get("minimum", value) <= value <= prop.get("maximum", value))


def expected(spec: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """What a board has to have, by name; what the spec asks wrongly is left out."""
    wanted = spec.get("properties") or {}
    found = {}
    for prop in model["properties"]:
        if prop["access"] == "ReadWrite":
            value = wanted.get(prop["name"], prop.get("default"))
            if value is not None and fits(prop, value):
                found[prop["name"]] = value
    return found


@dataclass
class Heard:
    """What has reached one bridge in its present connection: when it asked the board first, and what it was told."""

    asked_at: int = 0
    birth: bytes = b""  # the epoch of the last session message, if that was a birth
    at: int = 0  # when the board was last heard, by a birth or a report that was new
    said: set[bytes] = field(default_factory=set)


class Truth:
    """History and judgement."""

    def __init__(self) -> None:
        self.specs: dict[tuple[bytes, int], list[Mapping[str, Any]]] = {}
        self.models: dict[bytes, Mapping[str, Any]] = {}
        self.accepted: set[tuple[bytes, int]] = set()
        self.perfect: dict[tuple[bytes, int, str], int] = {}
        self.alive: dict[str, int] = {}
        self.applied: tuple[int, Any] | None = None  # life, twin.applied
        self.now = self.pins_right_at = 0
        self.flash_seen = 0
        self.flash: Counter[tuple[int, str, int]] = Counter()
        self.writes = self.mails = 0

    # The user's side
    def asked(self, obj: Mapping[str, Any]) -> None:
        """A Board object as a person left it."""
        meta = obj["metadata"]
        asked = self.specs.setdefault((wire_uid(meta["uid"]), meta["generation"]), [])
        if obj["spec"] not in asked:  # after a restore one generation can mean two things
            asked.append(obj["spec"])

    def accept(self, uid: str, generation: int) -> None:
        self.accepted.add((wire_uid(uid), generation))

    # The board's side
    def board(self, silicon: Silicon, now: int, quarrel: bool) -> None:
        """After each turn of the board; where two bridges have quarrelled only revisions are judged."""
        self._flash(silicon)
        if not silicon.powered:
            return
        agent, twin = silicon.agent, silicon.twin
        if agent.epoch and agent.link.connection is not None:
            self.alive[agent.epoch.hex()] = now
        self._forward(silicon.lives, twin, quarrel)
        have, self.now = {p.name: p.value for p in twin.props.values()}, now
        if silicon_values(silicon) == have:
            self.pins_right_at = now
        if twin.applied and self._is_perfect(silicon):
            uid, _, _, generation = twin.applied
            self.perfect[bytes(uid), generation, agent.epoch.hex()] = now

    def _forward(self, life: int, twin: Any, quarrel: bool) -> None:
        before = self.applied
        self.applied = (life, list(twin.applied) if twin.applied else None)
        if before is None or before[0] != life or before[1] is None:
            return
        if twin.refused and twin.refused[2] == REVERTED and twin.refused[0] >= before[1][1]:
            return  # rule 5: it runs what it last proved, which may be nothing, and says so
        if twin.applied is None:
            raise UntruthError(f"the board forgot what it had applied: {before[1]}")
        (uid0, rev0, dig0, gen0), (uid1, rev1, dig1, gen1) = before[1], twin.applied
        if rev1 < rev0:
            raise UntruthError(f"backwards: revision {rev0} was followed by {rev1}")
        if (rev0, dig0) == (rev1, dig1):
            return  # the same values; the name that it had for them is not worth a flash write, and a boot forgets it
        if uid0 == uid1 and gen1 < gen0 and not quarrel and not self._may_fall(bytes(uid0), gen0):
            raise UntruthError(f"backwards: generation {gen0} was followed by {gen1}")

    def _may_fall(self, uid: bytes, generation: int) -> bool:
        return any(u == uid and g >= generation for u, g in self.accepted)

    def _is_perfect(self, silicon: Silicon) -> bool:
        twin = silicon.twin
        uid, generation, model = bytes(twin.applied[0]), twin.applied[3], self.models.get(bytes(twin.model))
        specs = self.specs.get((uid, generation))
        if specs is None or model is None or twin.health:
            return False
        have = {p.name: p.value for p in twin.props.values()}
        return (
            self.now - self.pins_right_at <= READ_BACK_MS
            and any(have == {**have, **expected(spec, model)} for spec in specs)
            and not any(p.error for p in twin.props.values())
        )

    def _flash(self, silicon: Silicon) -> None:
        for path, data, finished in silicon.flash.writes[self.flash_seen :]:
            name = path.removeprefix("state/")[:-1]
            if finished and name in ("next", "good"):
                revision = cbor2.loads(data[12:])[1]
                self.flash[silicon.lives, name, revision] += 1
                if self.flash[silicon.lives, name, revision] > 1:
                    raise UntruthError(f"flash wear: {name} was written twice for revision {revision}")
        self.flash_seen = len(silicon.flash.writes)

    # The broker's side
    def mailed(self, before: bytes, after: bytes, quarrel: bool) -> None:
        """A bridge's desired overwrites what was retained."""
        self.mails += 1
        if not before or not after or quarrel:
            return
        (uid0, rev0, gen0, _), (uid1, rev1, gen1, _) = mail(before), mail(after)
        if uid0 == uid1 and rev1 > rev0 and gen1 < gen0 and not self._may_fall(uid0, gen0):
            raise UntruthError(f"restore: generation {gen1} was mailed above {gen0}, which nobody accepted")

    # The status
    def decided(self, obj: Mapping[str, Any], now: int, heard: Heard, waking: bool) -> None:
        """A bridge has decided to write this status."""
        status = obj["status"]
        found = {c["type"]: c for c in status["conditions"]}
        if (found["Ready"]["status"] == "True") != all(
            found[t]["status"] == "True" for t in ("Connected", "Synced", "Healthy")
        ):
            raise UntruthError("Ready is not the sum of its parts")
        if found["Synced"]["status"] == "True" and found["Connected"]["status"] != "True":
            raise UntruthError("Synced is claimed for a board that is not connected")
        if found["Connected"]["status"] == "True":
            self._connected(status, heard.asked_at)
        if found["Synced"]["status"] == "True":
            self._synced(obj, found["Synced"], now, waking)

    def ended(self, status: Mapping[str, Any], silicon: Silicon, heard: Heard, now: int) -> None:
        """A bridge that says Gone or Silent must not have heard the session that goes on, or not for a heartbeat."""
        connected = next(c for c in status["conditions"] if c["type"] == "Connected")
        if not silicon.powered or heard.birth != silicon.agent.epoch or not silicon.agent.link.connection:
            return
        if heard.at == now:
            return  # it may have been decided just before
        if connected["reason"] == "Gone" and not silicon.agent.link.connection.broker_closed:
            raise UntruthError("Gone: the session goes on, and the bridge was told of no other")
        if connected["reason"] == "Silent" and now - heard.at < silicon.twin.heartbeat_ms:
            raise UntruthError(f"Silent: the board spoke {now - heard.at} ms ago, its heartbeat is not due")

    def _connected(self, status: Mapping[str, Any], asked_at: int) -> None:
        alive = self.alive.get(status["session"]["epoch"])
        if not asked_at or alive is None or alive < asked_at:
            raise UntruthError(f"Connected: asked at {asked_at}, the board was last alive at {alive}")

    def _synced(self, obj: Mapping[str, Any], condition: Mapping[str, Any], now: int, waking: bool) -> None:
        status, uid = obj["status"], wire_uid(obj["metadata"]["uid"])
        generation = condition["observedGeneration"]
        if status.get("observedGeneration") != generation:
            raise UntruthError("Synced names another generation than the board confirmed")
        at = self.perfect.get((uid, generation, status["session"]["epoch"]))
        if at is None:
            raise UntruthError(f"Synced: in this session the board never ran generation {generation}")
        specs = self.specs[uid, generation]
        heartbeat_s = max((spec.get("settings") or {}).get("heartbeatSeconds", 60) for spec in specs)
        if now - at > 1500 * max(heartbeat_s, 60) + DYING_MS and not waking:
            raise UntruthError(f"Synced: generation {generation} last ran {now - at} ms ago")
        model = self.models[bytes.fromhex(status["model"]["digest"])]
        reported = status["reported"]
        if not any(reported == {**reported, **expected(spec, model)} for spec in specs):
            raise UntruthError(f"Synced: reported {reported} is not generation {generation}")
        if status.get("errors"):
            raise UntruthError("Synced with errors")

    def wrote(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """A status write has arrived."""
        self.writes += 1
        if before.get("status") == after["status"]:
            raise UntruthError("a status was written that changes nothing")


def mail(payload: bytes) -> tuple[bytes, int, int, bytes]:
    """uid, revision, generation and digest of a desired."""
    body = cbor2.loads(payload[:-DOWN_TAG])
    return body[0], body[1], body[2], digest(body[3])


def silicon_values(silicon: Silicon) -> dict[str, Any]:
    """What the board has by its own word, pins as they really are."""
    values = {p.name: p.value for p in silicon.twin.props.values()}
    if "led" in values and 2 in silicon.pins:
        values["led"] = bool(silicon.pins[2])
    return values
