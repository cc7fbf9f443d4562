"""What replicas that follow one another write: nothing before they know, nothing old over new, nothing too late."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from boardlet_bridge.core.board import FINALIZER, stands
from boardlet_bridge.core.state import Limits
from boardlet_bridge.core.status import snapshot
from boardlet_bridge.core.verdict import conditions
from boardlet_bridge.runtime.engine import Engine
from boardlet_bridge.runtime.object import OVERWRITTEN_S
from boardlet_bridge.runtime.registry import BOARDS
from boardlet_bridge.runtime.shard import BUCKETS
from boardlet_wire.topic import topic
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import BOARD_ID, GREENHOUSE, RING, UID, BoardSide

KEY = (BOARDS, "default", "g")


class Site:
    """A broker that retains, an API server with one Board, a clock, and the replica that serves it now."""

    def __init__(self, **settings: int) -> None:
        self.time = 100.0
        self.retained: dict[str, bytes] = {}
        self.side = BoardSide()
        meta = {"namespace": "default", "name": "m", "uid": "m", "resourceVersion": "1", "generation": 1}
        self.model = {"metadata": meta, "spec": GREENHOUSE}
        self.object: dict[str, Any] = {
            "metadata": {
                "name": "g", "namespace": "default", "uid": UID, "resourceVersion": "1", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FINALIZER],
            },
            "spec": {"boardID": BOARD_ID, "modelRef": {"name": "m"}, "settings": settings},
        }  # fmt: skip
        self.start()

    def start(self) -> None:
        """Another process: nothing in memory, no broker yet; of the one before nothing rings any more."""
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.marks: dict[tuple[str, str, str], bool] = {}
        self.question = b""
        self.up = False
        self.engine = Engine(RING, Limits(), self)
        self.engine.on_model("ADDED", self.model)
        self.engine.on_board("ADDED", copy.deepcopy(self.object))
        self.engine.on_listed()

    def connect(self) -> None:
        """The broker tells what it retains."""
        self.up = True
        for letter, payload in sorted(self.retained.items()):
            self.engine.on_message(BOARD_ID, letter, topic(BOARD_ID, letter), payload, retained=True)
        self.engine.on_up()

    def say(self, *messages: Any) -> None:
        for message in messages:
            if message.letter == "s":
                self.retained["s"] = message.payload
            self.engine.on_message(BOARD_ID, message.letter, topic(BOARD_ID, message.letter), message.payload, False)

    def join(self) -> None:
        """The board comes up with what the mailbox holds, if anything, and answers."""
        if not self.up or not self.retained.get("d"):
            return
        self.side.epoch = bytes([self.side.epoch[0] + 1]) + self.side.epoch[1:]
        self.side.sequence = 0
        self.side.apply(self.retained["d"])
        self.say(self.side.here())
        self.answer()

    def answer(self) -> None:
        if self.question:
            self.say(self.side.full(bytes(self.side.open("c", self.question)[0])))

    def wait(self, seconds: float) -> None:
        until = self.time + seconds
        while self.timers and self.timers[0][0] <= until:
            when, _, ring = heapq.heappop(self.timers)
            self.time = max(self.time, when)
            ring()
        self.time = until

    def store(self, **changed: Any) -> None:
        """The API server takes a change; the watch has not told it yet."""
        meta = self.object["metadata"]
        version = str(int(meta["resourceVersion"]) + 1)
        self.object = {**self.object, **copy.deepcopy(changed)}
        self.object["metadata"] = {**meta, **changed.get("metadata", {}), "resourceVersion": version}

    def watch(self) -> None:
        self.engine.on_board("MODIFIED", copy.deepcopy(self.object))

    def put(self, status: Mapping[str, Any]) -> None:
        """Somebody else writes the status, and the watch tells it."""
        self.store(status=dict(status))
        self.watch()

    def edit(self, target: int) -> None:
        generation = self.object["metadata"]["generation"] + 1
        self.store(metadata={"generation": generation}, spec={**self.object["spec"], "properties": {"target": target}})
        self.watch()

    def write(self, urgent: bool | None = None) -> None:
        """The writer writes what is marked: all, or what is urgent or calm."""
        if KEY not in self.marks or urgent not in (None, self.marks[KEY]):
            return
        del self.marks[KEY]
        body = self.engine.snapshot(KEY)
        if body is None:
            return
        meet = body["metadata"]["resourceVersion"] == self.object["metadata"]["resourceVersion"]
        if meet:
            self.store(status=body["status"])
        self.engine.written(KEY, copy.deepcopy(self.object))
        if not meet:
            self.mark(KEY, True)
            self.write()

    def away(self) -> None:
        self.up = False
        self.engine.on_down("test")

    def meddle(self, n: int) -> None:
        """Another writes the status, wrong in a condition or in a value; the watch may tell it at once."""
        status = copy.deepcopy(self.object.get("status"))
        if not status:
            return
        if n % 2:
            status["conditions"][1] |= {"status": "False", "reason": "Gone"}
        else:
            status.setdefault("reported", {})["temp"] = -n
        self.store(status=status)
        if n > 4:
            self.watch()

    def move(self) -> None:
        """Its bucket goes to another replica and comes back."""
        self.up = False
        self.engine.release(BUCKETS)
        self.engine.hold(BUCKETS)

    def check(self) -> None:
        """What differs from the status is marked, as far as the replica knows the object; or it is waited for."""
        [entry] = self.engine.registry.entries.values()
        board, status = entry.board, self.object.get("status") or {}
        if entry.object["metadata"]["resourceVersion"] != self.object["metadata"]["resourceVersion"]:
            return
        if conditions(board) != board.shown:
            assert self.timers, "what passes by itself is looked at again"
        elif not stands(board, status):
            assert self.marks.get(KEY) is True or (KEY in self.marks and self.time < entry.mended_at + OVERWRITTEN_S)
        elif snapshot(board, status, "").get("reported", {}) != status.get("reported", {}):
            assert KEY in self.marks

    @property
    def connected(self) -> tuple[str, str]:
        found = {c["type"]: c for c in self.object["status"]["conditions"]}["Connected"]
        return found["status"], found["reason"]

    # The engine's outlet
    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if retain:
            self.retained[topic[-1]] = payload
            self.engine.on_message(BOARD_ID, topic[-1], topic, payload, retained=False)
        else:
            self.question = payload

    def mark(self, key: tuple[str, str, str], urgent: bool) -> None:
        self.marks[key] = self.marks.get(key, False) or urgent

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (when, id(callback), callback))

    def now(self) -> float:
        return self.time

    def sure(self) -> bool:
        return True

    def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> None: ...
    def tell(self, obj: Mapping[str, Any], notice: object) -> None: ...
    def refused(self, cause: str) -> None: ...
    def unknown_board(self, board_id: str) -> None: ...
    def warned(self, reason: str) -> None: ...
    def doubt(self) -> None: ...
    def admit(self, board_id: str, number: int) -> None: ...


def served(**settings: int) -> Site:
    """A site whose board runs what is asked, and whose status says so."""
    site = Site(**settings)
    site.connect()
    site.join()
    site.wait(2)
    site.write()
    assert site.connected == ("True", "Answered"), site.object["status"]
    return site


def test_a_write_that_was_due_before_says_nothing_yet() -> None:
    """A replica that loses a board and has it again writes nothing of it before it has asked, not even Unknown."""
    site = served()
    before = site.object["status"]
    site.mark(KEY, False)  # of some value, and it waits for its interval
    site.engine.release(site.engine.registry.held.copy())
    site.engine.hold(BUCKETS)
    site.write()
    assert site.object["status"] == before
    site.connect()
    site.write()
    assert site.object["status"] == before
    site.answer()
    site.write()
    assert site.connected == ("True", "Answered")


def test_the_last_word_of_the_replica_before_is_not_undone() -> None:
    """A status of the replica before that is heard of late is where the next one begins: no write, and no old value."""
    site = served(sleepSeconds=600)
    site.say(site.side.asleep())
    site.write()
    late = copy.deepcopy(site.object["status"])
    late["reported"]["temp"] = 21.5
    site.start()
    site.put(late)
    site.write()
    assert site.object["status"] == late
    site.connect()
    site.wait(60)
    site.write()
    assert site.connected == ("Unknown", "Asleep")
    assert site.object["status"]["reported"]["temp"] == 21.5


@pytest.mark.parametrize("early", [True, False], ids=["before it knows", "afterwards"])
def test_conditions_that_another_has_written_are_put_right_at_once(early: bool) -> None:
    """Whoever else says that a board is gone: that it is not is a changed condition, and goes before values."""
    site = served()
    wrong = copy.deepcopy(site.object["status"])
    wrong["conditions"][1] |= {"status": "False", "reason": "Gone"}
    site.start()
    if early:
        site.put(wrong)
    site.connect()
    site.answer()
    site.wait(2)
    if not early:
        site.write()
        site.put(wrong)
    assert site.marks.get(KEY) is True
    site.write()
    assert site.connected == ("True", "Answered")


def test_two_that_do_not_agree_take_their_time() -> None:
    """Where another bridge writes other conditions again and again, they are put right at the pace of values."""
    site = served()
    right = site.object["status"]
    wrong = copy.deepcopy(right)
    wrong["conditions"][1] |= {"status": "False", "reason": "Gone"}
    site.marks.clear()
    marked = []
    for _ in range(3):
        site.put(wrong)
        marked.append(site.marks[KEY])
        site.write()
        assert site.object["status"] == right
    assert marked == [True, False, False]


def test_who_leaves_does_not_call_boards_silent() -> None:
    """While a replica writes its last it hears no board any more, and lets no deadline of theirs pass."""
    site = served(heartbeatSeconds=2)
    site.marks.clear()
    site.engine.leave()
    site.wait(5)
    assert site.marks == {}


@pytest.mark.parametrize("sleeps", [False, True], ids=["awake", "asleep"])
def test_who_leaves_writes_what_nobody_can_ask_for(sleeps: bool) -> None:
    """The last value of a board that sleeps, or will, is written at once by the replica that leaves."""
    site = served(sleepSeconds=600)
    site.say(site.side.report({2: 21.5}))
    if sleeps:
        site.say(site.side.asleep())
    site.marks.clear()
    site.engine.leave()
    assert site.marks == {KEY: True}
    site.write()
    assert site.object["status"]["reported"]["temp"] == 21.5


STEPS: Mapping[str, Callable[[Site, int], object]] = {
    "measures": lambda site, n: site.say(site.side.report({2: float(n)})),
    "waits": lambda site, n: site.wait((0.3, 2, 20, 100)[n % 4]),
    "is gone": lambda site, n: site.say(site.side.gone()),
    "joins": lambda site, n: site.join(),
    "answers": lambda site, n: site.answer(),
    "sleeps": lambda site, n: (
        site.say(site.side.asleep()) if "sleepSeconds" in site.object["spec"]["settings"] else None
    ),
    "is edited": lambda site, n: site.edit(5 + n),
    "broker away": lambda site, n: site.away(),
    "broker back": lambda site, n: None if site.up else site.connect(),
    "urgent": lambda site, n: site.write(True),
    "calm": lambda site, n: site.write(False),
    "another writes": lambda site, n: site.meddle(n),
    "watch": lambda site, n: site.watch(),
    "killed": lambda site, n: site.start(),
    "moved": lambda site, n: site.move(),
}


@given(
    st.sampled_from([{}, {"sleepSeconds": 600}, {"heartbeatSeconds": 2}]),
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9)), max_size=40),
)
@settings(max_examples=200, derandomize=True)
def test_in_any_order(chosen: dict[str, int], steps: list[tuple[str, int]]) -> None:
    """Whatever happens in any order: conditions that the status does not have are marked urgent, values are marked."""
    site = Site(**chosen)
    for step, n in steps:
        STEPS[step](site, n)
        site.check()
    site.watch()
    if not site.up:
        site.connect()
    site.join()
    for _ in range(14):  # longer than a start's grace, or a sleeper's turn
        site.wait(2)
        site.say(site.side.report({}))
        site.answer()
        site.check()
    site.say(site.side.report({2: 99.5}))
    site.write()
    assert site.connected == ("True", "Answered")
    assert site.object["status"]["reported"]["temp"] == 99.5
