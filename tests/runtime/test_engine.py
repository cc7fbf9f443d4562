"""The engine under hostile hands: what one credential or one object does stays with it, in memory and in the log."""

from __future__ import annotations

from typing import Any

import pytest
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.state import Limits
from boardlet_bridge.core.store import Change
from boardlet_bridge.runtime import leftover
from boardlet_bridge.runtime import step as steps
from boardlet_bridge.runtime.engine import Engine
from boardlet_bridge.runtime.shard import BUCKETS
from boardlet_wire.topic import bucket, topic
from outlet import Outlet, board
from structlog.testing import capture_logs


@pytest.fixture
def engine(outlet: Outlet) -> Engine:
    made = Engine(KeyRing(bytes(32), bytes(16)), Limits(), outlet)
    made.on_board("ADDED", board(1))
    made.on_board("ADDED", board(2))
    made.on_listed()
    made.on_up()
    return made


def message(engine: Engine, letter: str, payload: bytes, retained: bool = False, board_id: str = "board0001") -> None:
    engine.on_message(board_id, letter, topic(board_id, letter), payload, retained)


@pytest.mark.parametrize("serves", [True, False])
def test_a_login_follows_the_key_that_a_status_names(engine: Engine, outlet: Outlet, serves: bool) -> None:
    """A key that came over the air is let in once the object has it, by every replica, whoever heard the board."""
    if not serves:
        engine.release([bucket("board0001")])
    before = board(1)
    before["spec"]["credential"] = {"keyNumber": 2, "revokedKeyNumber": 0, "rotation": "OverTheAir"}
    before["metadata"] |= {"generation": 2, "resourceVersion": "2"}
    engine.on_board("MODIFIED", before)
    assert outlet.admitted["board0001"] == 1
    after = {**before, "metadata": {**before["metadata"], "resourceVersion": "3"}}
    engine.on_board("MODIFIED", {**after, "status": {"board": {"keyNumber": 2}}})
    assert outlet.admitted["board0001"] == 2


def test_a_flood_is_counted_and_not_logged_line_by_line(engine: Engine, outlet: Outlet) -> None:
    """A thousand forged messages are a thousand counts and one line; another line comes after a minute."""
    with capture_logs() as said:
        for _ in range(1000):
            message(engine, "s", b"forged and sealed by nobody")
        assert outlet.refusals.count("wrong_seal") == 1000
        assert len([line for line in said if line["log_level"] != "debug"]) == 1
        outlet.time += steps.REFUSED_S
        message(engine, "s", b"forged and sealed by nobody")
    shown = [(line["object"], line["board"]) for line in said if line["log_level"] != "debug"]
    assert shown == [("default/g1", "board0001"), ("default/g1", "board0001")]


def test_what_happens_to_a_board_is_logged_with_its_names(engine: Engine) -> None:
    """At debug each event of a board is a line that names Board and id, whether the cluster takes the Event or not."""
    with capture_logs() as said:
        message(engine, "s", b"forged and sealed by nobody")
    (line,) = [line for line in said if line["event"] == "event"]
    assert line["log_level"] == "debug"
    assert (line["object"], line["board"], line["reason"]) == ("default/g1", "board0001", "MessagesRefused")


def test_what_is_retained_where_nothing_should_be_is_ignored(engine: Engine, outlet: Outlet) -> None:
    """Poison that a stolen credential left on a report's topic does not accuse the board at every start."""
    before = len(outlet.published)
    for letter in "rwatl":
        message(engine, letter, b"poison" * 5, retained=True)
    assert outlet.refusals == ["retained"] * 5
    assert len(outlet.published) == before
    assert not next(iter(engine.registry.entries.values())).board.suspicion


def test_mailboxes_without_an_object_are_bounded_in_number_and_size(engine: Engine) -> None:
    """Whoever may write mailboxes cannot make the bridge hold more than a fleet's worth of them."""
    message(engine, "d", bytes(1_000_000), True, "unknown00")
    assert engine.registry.leftovers.mailboxes == {}
    for n in range(leftover.MAX_KEPT + 10):
        message(engine, "d", b"x", True, f"unknown{n:07d}")
    assert len(engine.registry.leftovers.mailboxes) == leftover.MAX_KEPT


def test_the_last_words_of_strangers_are_bounded(engine: Engine) -> None:
    """What boards without an object say last is kept, within bounds, until they say otherwise or have an object."""
    message(engine, "s", bytes(leftover.MAX_SESSION_BYTES + 1), True, "unknown00")
    message(engine, "s", b"here", True, "unknown01")
    message(engine, "s", b"asleep", False, "unknown01")
    message(engine, "s", b"asleep", True, "unknown02")
    message(engine, "s", b"", True, "unknown02")
    assert engine.registry.leftovers.sessions == {"unknown01": b"asleep"}
    for n in range(leftover.MAX_KEPT + 10):
        message(engine, "s", b"x", True, f"unknown{n:07d}")
    assert len(engine.registry.leftovers.sessions) == leftover.MAX_KEPT


def test_who_fell_asleep_before_its_deletion_was_heard_of_is_known_to_sleep(engine: Engine) -> None:
    """What a board said last is there for an object that is created anew, and only while the broker retains it."""
    message(engine, "s", b"awake")
    message(engine, "s", b"asleep")
    engine.on_board("DELETED", board(1))
    assert engine.registry.leftovers.sessions == {"board0001": b"asleep"}
    engine.on_board("ADDED", board(1))
    assert engine.registry.leftovers.sessions == {}, "its object has it"
    message(engine, "s", b"asleep")
    message(engine, "s", b"")
    message(engine, "s", b"asleep", board_id="board0002")
    engine.on_down("away")
    engine.on_board("DELETED", board(1))
    engine.on_board("DELETED", board(2))
    assert engine.registry.leftovers.sessions == {}


def test_a_board_that_was_removed_by_force_leaves_its_mailbox(engine: Engine, outlet: Outlet) -> None:
    """An object that went without being cleaned up after: its mailbox is named, kept, and taken up by its successor."""
    published = {"board0001": b"what it was asked last"}
    message(engine, "d", published["board0001"], True)
    before = len(outlet.published)
    with capture_logs() as said:
        engine.on_board("DELETED", {"metadata": {"namespace": "default", "name": "g1"}})
    assert [line["boards"] for line in said] == [["board0001"]]
    assert engine.registry.leftovers.mailboxes == published
    assert len(outlet.published) == before, "absence proves nothing: nothing is cleared"
    engine.on_board(
        "ADDED", {**board(1), "metadata": {**board(1)["metadata"], "uid": "99999999-2222-4333-8444-555555555555"}}
    )
    assert engine.registry.leftovers.mailboxes == {}
    assert engine.registry.entries["default", "g1"].board.mailbox == published["board0001"]


def test_mailboxes_without_an_object_are_named_when_the_broker_is_read(engine: Engine) -> None:
    """At each connection of the broker what nobody owns is said in one line, however much it is."""
    engine.on_down("test")
    for n in range(100):
        message(engine, "d", b"x", True, f"unknown{n:03d}")
    with capture_logs() as said:
        engine.on_up()
    [line] = [line for line in said if "mailboxes" in line]
    assert (line["mailboxes"], len(line["boards"])) == (100, leftover.MAX_NAMED)


def test_the_bridges_own_echo_costs_nothing(engine: Engine, outlet: Outlet) -> None:
    """A status that comes back as it was written, by the answer or the watch, marks nothing; another's does."""
    key = ("boards", "default", "g1")
    body = engine.snapshot(key)
    assert body is not None
    outlet.marks.clear()
    # The API server keeps an empty map that was not sent.
    status = {**body["status"], "reported": {}}
    echo = {**board(1), "metadata": {**board(1)["metadata"], "resourceVersion": "2"}, "status": status}
    engine.on_board("MODIFIED", echo)
    engine.written(key, echo)
    assert outlet.marks == []
    assert engine.snapshot(key) is None
    foreign = {**echo, "metadata": {**echo["metadata"], "resourceVersion": "3"}, "status": {"conditions": []}}
    engine.on_board("MODIFIED", foreign)
    assert outlet.marks == [key]


def test_a_step_that_fails_is_told_and_stays_with_its_board(
    engine: Engine, outlet: Outlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug that one board's bytes bring to light is said with the object's name, and the next board is served."""
    real = steps.step

    def step(board: Any, event: Any, now: float) -> Any:
        if board.keys.board_id == "board0001":
            raise ZeroDivisionError
        return real(board, event, now)

    monkeypatch.setattr(steps, "step", step)
    with capture_logs() as said:
        engine.on_down("test")
        engine.on_up()
    assert {line["object"] for line in said if line["log_level"] == "error"} == {"default/g1"}
    assert outlet.refusals == ["failed_step", "failed_step"]
    assert outlet.published[-1] == topic("board0002", "c")


def test_a_second_claim_is_said_and_takes_nothing(engine: Engine) -> None:
    """A younger Board of another namespace with the same id is logged with both names, and is not served."""
    with capture_logs() as said:
        thief = board(1, "thief", "2026-02-01T00:00:00Z")
        thief["metadata"]["uid"] = "99999999-2222-4333-8444-555555555555"
        engine.on_board("ADDED", thief)
    claims = [line for line in said if line["event"] == "two Boards claim one id"]
    assert [(line["served"], line["unserved"]) for line in claims] == [("default/g1", "thief/g1")]
    owner = engine.registry.claims.owner("board0001")
    assert owner is not None
    assert owner.name == ("default", "g1")


def rival(revoked: int = 0) -> dict[str, Any]:
    """A younger Board of another namespace with the id of g1."""
    made = board(1, "a-thief", "2026-02-01T00:00:00Z")
    made["metadata"]["uid"] = "99999999-2222-4333-8444-555555555555"
    made["spec"]["credential"] = {"keyNumber": revoked + 1, "revokedKeyNumber": revoked}
    return made


def test_a_rival_moves_no_login(engine: Engine, outlet: Outlet) -> None:
    """What another Board of a served id revokes, deleted and created again too, is nothing to the login in use."""
    sent = list(outlet.published)
    changes: list[tuple[Change, int]] = [("ADDED", 0), ("MODIFIED", 1), ("DELETED", 1), ("ADDED", 2), ("DELETED", 2)]
    for version, (change, revoked) in enumerate(changes, 2):
        one = rival(revoked)
        one["metadata"]["resourceVersion"] = str(version)
        engine.on_board(change, one)
        assert outlet.admitted["board0001"] == 1
    assert outlet.published == sent


def test_a_rival_brings_no_revoked_login_back(outlet: Outlet) -> None:
    """A bridge that starts meets the rival first, as its namespace is earlier in the list; the older Board decides."""
    engine = Engine(KeyRing(bytes(32), bytes(16)), Limits(), outlet)
    revoked = board(1)
    revoked["spec"]["credential"] = {"keyNumber": 1, "revokedKeyNumber": 1}
    engine.on_board("ADDED", rival())
    engine.on_board("ADDED", revoked)
    assert outlet.admitted["board0001"] == 0


def test_an_ids_key_is_not_that_of_a_name(engine: Engine) -> None:
    """What was spoken under an id is known for every Board that names it, as is that another one does."""
    spoken = board(1)
    spoken["metadata"]["resourceVersion"] = "2"
    spoken["status"] = {"board": {"keyNumber": 3}}
    engine.on_board("MODIFIED", spoken)
    assert engine.registry.claims.proven_key("board0001") == 3
    assert engine.registry.claims.proven_key("board0002") == 0
    assert engine.registry.claims.claimed("board0001", ("thief", "g1"))
    assert not engine.registry.claims.claimed("board0001", ("default", "g1"))
    assert not engine.registry.claims.claimed("board0009", ("thief", "g1"))


def test_a_claim_of_the_same_second_takes_nothing(engine: Engine) -> None:
    """Creation times are whole seconds: of two claims within one, the Board that has been served stays served."""
    known = board(1)
    known["metadata"]["resourceVersion"] = "2"
    known["status"] = {"desired": {"revision": 1, "digest": "00" * 8, "generation": 1}}
    engine.on_board("MODIFIED", known)
    thief = board(1, "thief")
    thief["metadata"]["uid"] = "00000000-2222-4333-8444-555555555555"
    engine.on_board("ADDED", thief)
    owner = engine.registry.claims.owner("board0001")
    assert owner is not None
    assert owner.name == ("default", "g1")


def test_what_another_replica_serves_is_left_alone(engine: Engine, outlet: Outlet) -> None:
    """A bucket that is lost: nothing is sent, written or remembered of its boards, whatever comes in for them."""
    key = ("boards", "default", "g1")
    message(engine, "d", b"a mailbox", True)
    message(engine, "d", b"of nobody", True, "unknown00")
    engine.release({bucket("board0001"), bucket("unknown00")})
    assert engine.registry.entries["default", "g1"].board.mailbox == b""
    assert engine.registry.leftovers.mailboxes == {}
    before = list(outlet.published), list(outlet.marks), list(outlet.refusals)
    edited = board(1)
    edited["metadata"] |= {"resourceVersion": "2", "generation": 2}
    edited["status"] = {"conditions": []}
    engine.on_board("MODIFIED", edited)
    for letter in "srd":
        message(engine, letter, b"for somebody else")
    assert (outlet.published, outlet.marks, outlet.refusals) == before
    assert engine.snapshot(key) is None
    assert engine.census.served == 1


def test_a_bucket_that_is_gained_is_begun_as_at_a_start(engine: Engine, outlet: Outlet) -> None:
    """What was held is forgotten, the object of now counts; the board is asked when its mailbox has been read."""
    mine = {bucket("board0001")}
    engine.release(mine)
    edited = board(1)
    edited["metadata"] |= {"resourceVersion": "2", "generation": 2}
    edited["status"] = {"desired": {"revision": 7, "digest": "00" * 8, "generation": 1}, "board": {"keyNumber": 1}}
    engine.on_board("MODIFIED", edited)
    outlet.published.clear()
    engine.hold(mine)
    held = engine.registry.entries["default", "g1"].board
    assert (held.generation, held.recorded and held.recorded.revision) == (2, 7)
    assert outlet.published == []
    engine.on_up(mine)
    assert outlet.published == [topic("board0001", "c")]


def test_a_start_keeps_back_nothing_that_was_due_before_the_lease(outlet: Outlet) -> None:
    """What the listing makes a bridge say of a Board, a missing model as its Event, is said once the lease is there."""
    told: list[object] = []
    outlet.tell = lambda obj, notice: told.append(notice)  # type: ignore[method-assign,assignment]
    made = Engine(KeyRing(bytes(32), bytes(16)), Limits(), outlet)
    made.registry.held.clear()
    made.on_board("ADDED", board(1))
    assert (told, outlet.marks) == ([], [])
    made.hold(BUCKETS, fresh=True)
    assert [notice.happening for notice in told] == ["ModelNotFound"]  # type: ignore[attr-defined]
    assert outlet.marks == [("boards", "default", "g1")]


def test_a_model_is_told_by_one_replica(engine: Engine, outlet: Outlet) -> None:
    """A BoardModel's status is written by the replica that holds the bucket of its name, and by no other."""
    model = {
        "metadata": {"namespace": "default", "name": "m", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"properties": [{"name": "led", "index": 0, "type": "Boolean", "access": "ReadWrite"}]},
    }
    engine.on_model("ADDED", model)
    key = ("boardmodels", "default", "m")
    assert engine.snapshot(key) is not None
    engine.release({bucket("default/m")})
    assert engine.snapshot(key) is None
    outlet.marks.clear()
    engine.hold({bucket("default/m")})
    assert key in outlet.marks


def test_without_a_lease_only_what_was_minted_before_is_sent(engine: Engine, outlet: Outlet) -> None:
    """While nobody knows who serves a board, its last desired may be mailed again, and nothing that is minted then."""
    model = {
        "metadata": {"namespace": "default", "name": "m", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"properties": [{"name": "led", "index": 0, "type": "Boolean", "access": "ReadWrite"}]},
    }
    engine.on_model("ADDED", model)
    entry = engine.registry.entries["default", "g1"]
    where, known = topic("board0001", "d"), entry.board.desired
    assert known is not None
    outlet.is_sure = False
    edited = board(1)
    edited["metadata"] |= {"resourceVersion": "2", "generation": 2}
    edited["spec"] |= {"properties": {"led": True}}
    engine.on_board("MODIFIED", edited)
    minted = entry.board.desired
    assert minted is not None
    assert minted.identity.revision == known.identity.revision + 1
    assert engine.may_send(where, known.payload, True)
    assert not engine.may_send(where, minted.payload, True)
    assert not engine.may_send(where, b"", True)
    assert engine.may_send(topic("board0001", "c"), b"a question", False)
