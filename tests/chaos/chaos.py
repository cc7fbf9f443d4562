"""The world: one board, one broker, one API server, bridges that come and go, and a clock; all in one process.

Nothing moves by itself: `nibble` lets single things happen, `run` lets time pass until nothing is left to do at each
moment. Equal calls give equal worlds.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import cbor2
import structlog
from apiserver import ApiServer
from boardlet_bridge.core.board import ACCEPT_RESTORE
from boardlet_bridge.core.model import compile_model
from boardlet_wire.seal import UP_TAG
from boardlet_wire.topic import bucket, topic
from bridgeprocess import Process, doors
from hub import Connection, Hub
from silicon import Silicon
from truth import HERE, Heard, Truth, UntruthError, expected, mail, silicon_values, wire_uid

BOARD_ID = "k7m2q9xa"
NAME = "greenhouse-7"
ROOT = bytes(range(32))
PATIENCE_MS = 3_000_000  # safe mode lasts ten minutes; whatever heals, heals within this
LED = {
    "name": "led",
    "index": 0,
    "type": "Boolean",
    "access": "ReadWrite",
    "default": False,
    "driver": {"type": "GpioOut", "pins": [2]},
}
TEMP = {
    "name": "temp",
    "index": 2,
    "type": "Integer",
    "access": "ReadOnly",
    "driver": {"type": "Adc", "pins": [34], "sampleMilliseconds": 5000},
}
LABEL = {"name": "label", "index": 3, "type": "String", "access": "ReadWrite", "maxLength": 8}
COUNT = {"name": "count", "index": 4, "type": "Integer", "access": "ReadWrite", "default": 7}


def target(default: float) -> dict[str, Any]:
    # Thinned, which must never hold back what was asked for.
    limits = {"minimum": 5, "maximum": 35, "default": default, "report": {"deadband": 3, "minIntervalSeconds": 600}}
    return {"name": "target", "index": 1, "type": "Number", "access": "ReadWrite", **limits}


MODELS: list[dict[str, Any]] = [
    {"properties": [LED, target(20), TEMP, LABEL]},
    {"properties": [LED, target(25), TEMP, LABEL]},
    {"properties": [LED, target(20), TEMP, LABEL, COUNT]},
]
DEADLY = "die"
MOST_WAKES = 50


class World:
    """Use as a context: it holds stand-ins in the bridge's modules for as long as it lives."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 1_000_000  # ms
        self.truth = Truth()
        self.hub = Hub(self.clock)
        self.api = ApiServer()
        self.silicon = Silicon(BOARD_ID, ROOT, self.hub, self.clock, seed.to_bytes(8, "big"))
        self.silicon.deadly = lambda name, value: (name, value) == ("label", DEADLY)
        self.bridges: list[Process] = []
        self.heard: dict[Process, Heard] = {}
        self.woken_at = -(10**9)
        self.robbed = False  # somebody may have put a mailbox there again after the deletion
        self.quarrel = False  # two bridges have served the board: one may mail an older generation until it hears
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory()
        self._root_key = Path(self._folder.name) / "root"
        self._root_key.write_text(ROOT.hex())
        self._patches = [mock.patch.object(*door) for door in doors(seed, self._wall, bucket(BOARD_ID))]
        self.hub.watch = self._published
        self.api.wrote = self.truth.wrote

    def __enter__(self) -> World:
        self._log = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        for patch in self._patches:
            patch.start()
        self.set_model(0, create=True)
        self.create()
        self.start_bridge()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in list(self.bridges):
            self.kill(process)
        for patch in self._patches:
            patch.stop()
        structlog.configure(**self._log)
        self._folder.cleanup()

    def clock(self) -> int:
        return self.now

    def _wall(self) -> str:
        return f"t{self.now // 1000}"

    # What is judged
    def _published(self, client: str, topic_: str, payload: bytes) -> None:
        if topic_ == topic(BOARD_ID, "d"):
            self.truth.mailed(self.hub.retained.get(topic_, b""), payload, self.quarrel)

    def _deciding(self, process: Process, obj: dict[str, Any]) -> None:
        if obj["kind"] == "Board":
            waking = self.now - self.woken_at < 5000
            self.truth.decided(obj, self.now, self.heard[process], waking)
            if self.object is not None and self.object["metadata"]["uid"] == obj["metadata"]["uid"]:
                self.truth.ended(obj["status"], self.silicon, self.heard[process], self.now)

    def _told(self, process: Process, topic_: str, payload: bytes) -> None:
        heard = self.heard[process]
        if payload in heard.said:
            return  # the thief's, or a second copy
        heard.said.add(payload)
        if topic_ == topic(BOARD_ID, "s") and payload:
            session = cbor2.loads(payload[:-UP_TAG])
            if session[1] == HERE:
                heard.birth, heard.at = session[2], self.now
            elif session[2] == heard.birth:
                heard.birth = b""
        elif topic_ == topic(BOARD_ID, "r"):
            heard.at = self.now

    # The user
    @property
    def object(self) -> dict[str, Any] | None:
        return self.api.objects.get(("boards", NAME))

    @property
    def leaving(self) -> bool:
        """Whether the Board is being deleted, or is."""
        return self.object is None or "deletionTimestamp" in self.object["metadata"]

    def create(self) -> None:
        spec = {"boardID": BOARD_ID, "modelRef": {"name": "greenhouse"}, "properties": {"led": True}}
        self.truth.asked(self.api.create("boards", NAME, spec))

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        if self.object is not None:
            self.truth.asked(self.api.edit("boards", NAME, change))

    def edit_property(self, name: str, value: Any) -> None:
        def change(obj: dict[str, Any]) -> None:
            obj["spec"]["properties"][name] = value

        self.edit(change)

    def set_model(self, n: int, create: bool = False) -> None:
        spec = MODELS[n]
        compiled = compile_model("greenhouse", spec)
        self.truth.models[compiled.digest] = spec
        if create:
            self.api.create("boardmodels", "greenhouse", spec)
        else:
            self.api.edit("boardmodels", "greenhouse", lambda obj: obj.__setitem__("spec", spec))

    def delete(self) -> None:
        if self.object is not None:
            self.robbed = len(self.bridges) > 1  # the other one mails until it hears of the deletion
            self.api.delete("boards", NAME)
            if self.object is not None:
                self.truth.asked(self.object)

    def accept(self) -> None:
        """Do what the condition Restored says."""
        said = self.condition("Restored")
        if said is None or self.object is None:
            return
        generation = int(said["message"].rsplit("=", 1)[1])
        self.truth.accept(self.object["metadata"]["uid"], generation)

        def change(obj: dict[str, Any]) -> None:
            obj["metadata"].setdefault("annotations", {})[ACCEPT_RESTORE] = str(generation)

        self.edit(change)

    def replay(self, n: int) -> None:
        """Who has stolen the broker sends the last message but n again, retained as it was."""
        message = self.hub.history[-1 - n % len(self.hub.history)]
        self.robbed = self.robbed or self.leaving
        self.hub.route("thief", *message)

    def restore(self, n: int) -> None:
        self.api.restore(n)
        for process in self.bridges:
            process.api_away()

    # Bridges
    def start_bridge(self) -> Process:
        self._seed += 1
        self.robbed = self.robbed or bool(self.bridges and self.leaving)
        self.quarrel = self.quarrel or bool(self.bridges)
        process = Process(self.hub, self.api, lambda: self.now / 1000, self._seed, self._root_key)
        heard = self.heard[process] = Heard()
        process.deciding = lambda obj: self._deciding(process, obj)
        process.told = lambda topic_, payload: self._told(process, topic_, payload)

        def asked() -> None:
            heard.asked_at = heard.asked_at or self.now

        def connected() -> None:
            heard.asked_at, heard.birth = 0, b""

        process.asked, process.connected = asked, connected
        self.bridges.append(process)
        return process

    def kill(self, process: Process) -> None:
        self.bridges.remove(process)
        del self.heard[process]
        process.kill()

    def pause(self, process: Process, paused: bool) -> None:
        process.paused = paused
        if not paused:
            self.woken_at = self.now

    # Connections
    def connection(self, who: str) -> Connection | None:
        """The present one of "board" or of the first bridge."""
        for connection in reversed(self.hub.live()):
            if (connection.client_id == BOARD_ID) == (who == "board"):
                return connection
        return None

    # Time
    def _move(self) -> bool:
        """One thing happens: a packet, a turn of the board, a step of a bridge, a request."""
        self.hub.expire()
        for connection in list(self.hub.connections):
            if self.hub.step(connection):
                return True
        if self.silicon.ready:
            self.silicon.turn()
            self.truth.board(self.silicon, self.now, self.quarrel)
            return True
        for process in self.bridges:
            if process.ready:
                process.step()
                if process.wakes > MOST_WAKES:
                    raise UntruthError(f"one board has {process.wakes} timers")
                return True
        return any(process.api_step() for process in self.bridges)

    def nibble(self, n: int) -> None:
        """At most n things happen, in no time."""
        for _ in range(n):
            if not self._move():
                return

    def _next_at(self) -> float:
        times: list[float] = [at for at in (self.silicon.next_at(), self.hub.next_at()) if at is not None]
        for process in self.bridges:
            at = process.loop.next_at
            if at is not None and not process.paused:
                times.append(int(at * 1000) + 1)
        return min(times, default=float("inf"))

    def run(self, ms: int) -> None:
        """Time passes, and everything happens that can."""
        end = self.now + ms
        while True:
            moves = 0
            while self._move():
                moves += 1
                if moves > 20_000:
                    raise UntruthError("something goes round in circles")
            at = self._next_at()
            if at > end:
                break
            self.now = max(self.now + 1, int(at))
        self.now = end

    # What has become of it
    def condition(self, type_: str) -> dict[str, Any] | None:
        status = (self.object or {}).get("status") or {}
        return {c["type"]: c for c in status.get("conditions") or ()}.get(type_)

    def heal(self) -> None:
        """The faults stop; what was lost stays lost."""
        silicon, hub = self.silicon, self.hub
        silicon.stuck = silicon.broken = silicon.flash.full = False
        silicon.network, silicon.fuse = True, None
        hub.up, hub.wills_come_late = True, False
        hub.drop_publishes = hub.drop_deliveries = 0
        for connection in hub.connections:
            connection.stalled = False
        while hub.late_wills:
            hub.late()
        self.api.up = True
        for process in self.bridges[:-1]:
            self.kill(process)
        if not self.bridges:
            self.start_bridge()
        for process in self.bridges:
            process.api_stalled = process.watch_stalled = False
            if process.paused:
                self.pause(process, False)
        if not silicon.powered and silicon.restart_at is None:
            silicon.power_on()

    def wait_for(self, what: str, done: Callable[[], bool], patience_ms: int = PATIENCE_MS) -> None:
        """Until it is so, at most `patience_ms`."""
        end = self.now + patience_ms
        pause = 2_000
        while not done():
            if self.now >= end:
                raise UntruthError(f"never came: {what}: {self.difference()}")
            self.run(pause)
            pause = min(2 * pause, 100_000)

    def settle(self) -> None:
        """After the faults: everything is right by itself, or says what its user must do, who then does it."""
        self.heal()
        if self.object is not None and self.object["metadata"].get("deletionTimestamp"):
            self.wait_for("deletion", lambda: self.object is None)
            if topic(BOARD_ID, "d") in self.hub.retained and not self.robbed:
                raise UntruthError("the mailbox of a deleted board is still there")
        if self.object is None:
            self.create()
        self.wait_for("an end", self._ended)
        self.accept()
        assert self.object is not None
        wrong = {"label": "ok", "target": 21}
        self.edit(lambda obj: obj["spec"]["properties"].update(wrong))
        self.wait_for("the right values", self._right)
        self.run(320_000)  # longer than anything is remembered for
        self.wait_for("an end of it", lambda: not self.difference(), 5_000)
        self._calm()

    def _suspected(self) -> bool:
        assert self.object is not None
        return any(c["type"] == "MessagesRefused" for c in self.object["status"]["conditions"])

    def _calm(self) -> None:
        """Two heartbeats cost nothing, an edit one desired, one flash write and one status write."""
        assert self.object is not None
        heartbeat_s = (self.object["spec"].get("settings") or {}).get("heartbeatSeconds", 60)
        before = self.truth.writes, len(self.silicon.flash.writes)
        self.run(2_000 * heartbeat_s)
        if (self.truth.writes, len(self.silicon.flash.writes)) != before:
            raise UntruthError(f"{self.truth.writes - before[0]} status writes although nothing changed")
        mailed, suspected = self.truth.mails, self._suspected()
        self.edit_property("target", 23)
        self.run(10_000)
        # What the board has dropped long before it may tell only now: that is a change of its own.
        writes = self.truth.writes - before[0] - (self._suspected() and not suspected)
        cost = self.truth.mails - mailed, len(self.silicon.flash.writes) - before[1], writes
        if cost != (1, 1, 1) or self.difference():
            raise UntruthError(f"an edit cost {cost} desireds, flash writes and status writes: {self.difference()}")

    def _right(self) -> bool:
        self.accept()
        return not self.difference()

    def _ended(self) -> bool:
        if not self.difference():
            return True
        synced = self.condition("Synced")
        return synced is not None and synced["reason"] in ("Reverted", "PropertyErrors", "Restored")

    def difference(self) -> str:
        """What keeps board, object, mailbox and status from being one, "" for nothing."""
        obj, silicon = self.object, self.silicon
        if obj is None or not silicon.powered or silicon.twin.applied is None:
            return "no object, or no board that runs something"
        status, meta = obj.get("status") or {}, obj["metadata"]
        ready = self.condition("Ready") or {}
        uid, revision, dig, generation = silicon.twin.applied
        model = self.truth.models[compile_model("greenhouse", self.api.get("boardmodels", "greenhouse")["spec"]).digest]
        wanted, have = expected(obj["spec"], model), silicon_values(silicon)
        retained = self.hub.retained.get(topic(BOARD_ID, "d"))
        mailed = mail(retained) if retained else None
        parts = {
            f"Ready is {ready}": ready.get("status") != "True",
            f"generation {meta['generation']}, board {generation}": meta["generation"] != generation,
            "another object's": wire_uid(meta["uid"]) != uid,
            f"status is of {status.get('observedGeneration')}": status.get("observedGeneration") != meta["generation"],
            f"board has {have}, asked {wanted}": have != {**have, **wanted},
            f"status says {status.get('reported')}, board has {have}": status.get("reported")
            != {k: v for k, v in have.items() if v is not None},
            f"mailed {mailed}, applied {silicon.twin.applied}": mailed != (uid, revision, generation, dig),
            "writes are pending": not all(process.idle for process in self.bridges),
        }
        return "; ".join(text for text, wrong in parts.items() if wrong)
