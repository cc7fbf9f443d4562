"""Schedules that the rules 8, 10 and 12 of docs/design.md answer: seals, errors and owners."""

from __future__ import annotations

import pytest
from boardlet_bridge.core.board import FINALIZER
from boardlet_bridge.core.event import BrokerUp, ClaimSeen, Message, ModelSeen
from boardlet_bridge.core.reason import PROPERTY_REASONS
from boardlet_wire.names import PropertyCode, RefusalCode
from peer import BOARD_ID, GREENHOUSE, RING, BoardSide, World, model, ready


class TestSeals:
    """Rule 8."""

    @pytest.mark.parametrize("letter", ["s", "r", "w", "d"])
    def test_forged(self, letter: str) -> None:
        """Bytes under a wrong seal move nothing, are counted, and are told on the object."""
        world = ready()
        reported = world.status["reported"]
        forger = BoardSide(key=b"f" * 32, epoch=world.side.epoch, sequence=world.side.sequence)
        forged = {"s": forger.gone(), "r": forger.report({0: False}), "w": forger.want(b"12345678", 0, 9)}
        world.send(forged.get(letter, Message("d", b"x" * 60)))
        assert "wrong_seal" in world.refused
        assert world.condition("Connected") == ("True", "Answered")
        assert world.status["reported"] == reported
        assert world.condition("MessagesRefused") == ("True", "WrongSeal")
        world.send(world.side.report({-2: world.side.applied}))
        world.wait(301)
        assert "MessagesRefused" not in {c["type"] for c in world.status["conditions"]}

    def test_report_of_another_epoch(self) -> None:
        """A report sealed in an earlier epoch is not believed in this one."""
        world = ready()
        old = BoardSide(epoch=world.side.epoch, sequence=world.side.sequence)
        world.join()
        world.send(old.report({0: False}))
        assert world.condition("Synced") == ("True", "Synced")

    def test_keys_differ_by_direction_and_board(self) -> None:
        """A board's own bytes, sent back to it or to another board, verify nowhere."""
        a, b = RING.board(BOARD_ID), RING.board("b3x8w5nd")
        sealed = a.close("d", b"body")
        assert a.open_own("d", sealed) == b"body"
        assert b.open_own("d", sealed) is None
        assert a.open("d", sealed, b"") is None
        assert RING.board(BOARD_ID, 2).open_own("d", sealed) is None
        assert a.down.hex() not in repr(a)
        assert RING.root.hex() not in repr(RING)


class TestErrors:
    """Rule 10."""

    def test_value_out_of_range_is_refused_alone(self) -> None:
        """One property's bad value is told for that property; the others apply."""
        world = ready()
        world.edit(target=99, led=False)
        world.ack()
        assert world.condition("Synced") == ("False", "PropertyErrors")
        assert world.status["reported"]["led"] is False
        [error] = world.status["errors"]
        assert (error["property"], error["source"], error["reason"]) == ("target", "Bridge", "OutOfRange")
        assert "35" in error["message"]

    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("led", "on", "WrongType"),
            ("led", 1, "WrongType"),
            ("target", True, "WrongType"),
            ("target", 4.9, "OutOfRange"),
            ("target", 1e39, "OutOfRange"),
            ("target", None, "WrongType"),
            ("target", {"a": 1}, "WrongType"),
            ("label", "123456789", "TooLong"),
            ("temp", 3, "ReadOnly"),
            ("nope", 1, "UnknownProperty"),
        ],
    )
    def test_words(self, name: str, value: object, reason: str) -> None:
        """Every kind of wrong value has its own reason."""
        world = ready()
        world.edit(**{name: value})
        world.ack()
        assert [(e["property"], e["reason"]) for e in world.status["errors"]] == [(name, reason)]

    def test_what_the_board_refuses(self) -> None:
        """A property's error from the board makes Synced False, and its clearing makes it True again."""
        world = ready()
        world.send(world.side.report({-3: {0: 6}}))
        assert world.condition("Synced") == ("False", "PropertyErrors")
        assert world.status["errors"][0]["reason"] == "DriverFailed"
        world.send(world.side.report({-3: {0: 0}}))
        assert world.condition("Ready") == ("True", "Synced")
        assert "errors" not in world.status

    @pytest.mark.parametrize("code", [*(code for code in PropertyCode if code), 77])
    def test_every_code_of_a_property_is_a_word(self, code: int) -> None:
        """Each code of PROTOCOL.md section 7 is its word, with a message; one of a later version is Refused."""
        world = ready()
        world.send(world.side.report({-3: {0: code}}))
        [error] = world.status["errors"]
        known = {known: "".join(part.capitalize() for part in known.name.split("_")) for known in PropertyCode}
        assert error["reason"] == known.get(code, "Refused")  # type: ignore[call-overload]
        assert (error["property"], error["source"]) == ("led", "Board")
        assert len(error["message"]) > 15

    @pytest.mark.parametrize("code", [*RefusalCode, 77])
    def test_every_refusal_is_a_word(self, code: int) -> None:
        """Each code of section 6 makes Synced False with its word; one of a later version says Refused."""
        world = ready()
        world.edit(target=30)
        assert world.board.desired is not None
        asked = world.board.desired.identity
        of_this = code not in (RefusalCode.TOO_LARGE, RefusalCode.MALFORMED)
        world.send(world.side.report({-6: [asked.revision, asked.digest, code] if of_this else [0, b"", code]}))
        known = {known: "".join(part.capitalize() for part in known.name.split("_")) for known in RefusalCode}
        if code == RefusalCode.CONFLICT:
            assert world.revision() == 3, "a higher one is minted at once"
        else:
            assert world.condition("Synced") == ("False", known.get(code, "Refused"))  # type: ignore[call-overload]

    @pytest.mark.parametrize(
        ("code", "said"), [(0, "Running"), (1, "SafeMode"), (2, "AppFailed"), (77, "UnknownHealth")]
    )
    def test_every_health_is_a_word(self, code: int, said: str) -> None:
        """Each code of a board's health is a reason of Healthy, and of Ready where it is not well."""
        world = ready()
        world.send(world.side.report({-8: code}))
        assert world.condition("Healthy")[1] == said
        assert world.condition("Ready")[1] == (said if code else "Synced")

    @pytest.mark.parametrize("said", [{-3: {1: 8}}, {-8: 2}], ids=["handler", "timer"])
    def test_what_an_app_raised_is_asked_for(self, said: dict[int, object]) -> None:
        """A handler or a timer that raises while the board runs: its traceback is in the status within ten seconds."""
        world = ready()
        asked = world.count("c")
        world.send(world.side.report(said))
        world.wait(9)
        assert world.count("c") == asked, "its session has only just been asked for"
        world.wait(2)
        assert (world.count("c"), world.operation()) == (asked + 1, 1)
        world.send(world.side.here(_16="Traceback:\n  File app.py\nValueError: no"))
        world.answer()
        assert world.status["board"]["lastCrash"].endswith("ValueError: no")
        world.wait(30)
        assert world.count("c") == asked + 1

    def test_a_board_that_knows_no_traceback_is_asked_once(self) -> None:
        """An implementation that keeps none is not asked for it again and again."""
        world = ready()
        world.wait(20)
        asked = world.count("c")
        world.send(world.side.report({-3: {1: 8}}))
        world.send(world.side.here())
        world.send(world.side.full(world.nonce(), _3={1: 8}))
        world.wait(50)
        assert world.count("c") == asked + 1
        assert world.condition("Synced") == ("False", "PropertyErrors")

    def test_what_nobody_gives_a_value(self) -> None:
        """A ReadOnly property that has no driver, on a board that has no app, is told in the board's own words."""
        world = ready()
        orphan = {"name": "level", "index": 4, "type": "Number", "access": "ReadOnly"}
        world.send(ModelSeen(model({"properties": [*GREENHOUSE["properties"], orphan]})))
        world.join()
        assert world.condition("Synced") == ("False", "PropertyErrors")
        [error] = world.status["errors"]
        assert error == {
            "property": "level",
            "source": "Bridge",
            "reason": "NoHandler",
            "message": PROPERTY_REASONS[PropertyCode.NO_HANDLER][1],
        }
        world.send(world.side.report({4: 1.5}))
        assert world.condition("Ready") == ("True", "Synced"), "another agent may have values of its own"
        assert "errors" not in world.status

    @pytest.mark.parametrize("birth", [{"_13": b"app.py--"}, {"_17": True}], ids=["app", "safe mode"])
    def test_what_an_app_may_give_a_value_later(self, birth: dict[str, object]) -> None:
        """A board that has an app, or has not loaded it, is not blamed for what it has not measured yet."""
        world = ready()
        orphan = {"name": "level", "index": 4, "type": "Number", "access": "ReadOnly"}
        world.send(ModelSeen(model({"properties": [*GREENHOUSE["properties"], orphan]})))
        world.join(**birth)
        assert "errors" not in world.status
        assert world.condition("Synced") == ("True", "Synced")

    def test_broken_reports(self) -> None:
        """Wrong types and unknown indexes are errors of those properties alone."""
        world = ready()
        world.send(world.side.report({2: "warm", 77: 1, 1: 20.0}))
        assert {(e["property"], e["reason"]) for e in world.status["errors"]} == {
            ("temp", "WrongType"),
            ("#77", "UnknownProperty"),
        }

    @pytest.mark.parametrize(
        "body", [{-1: "x"}, {-2: "x"}, {-2: [1, 2, 3, 4]}, {-3: 5}, {-3: {0: "x"}}, {-6: [1]}, {-8: -1}]
    )
    def test_malformed_reports(self, body: dict[int, object]) -> None:
        """A sealed report that cannot be understood changes nothing, is told, and is healed by a full one."""
        world = ready()
        world.send(world.side.report(body))
        assert "malformed" in world.refused
        assert world.condition("MessagesRefused") == ("True", "Malformed")
        world.send(world.side.report({}))
        world.answer()
        assert world.condition("Synced") == ("True", "Synced")


class TestOwners:
    """Two objects that claim one id."""

    def test_the_later_one_says_so(self) -> None:
        """The object that is not served says whose the board is, and sends nothing."""
        world = World()
        world.send(ClaimSeen("default/first"))
        world.connect_broker()
        assert world.published == []
        for type_ in ("Ready", "Connected", "Synced", "Healthy"):
            assert world.condition(type_) == ("Unknown", "DuplicateBoardID")
        world.send(ClaimSeen(""))
        world.send(BrokerUp())
        world.join()
        assert world.condition("Ready") == ("True", "Synced")

    def test_an_older_claim_that_appears_late(self) -> None:
        """A Board that was served and is not any more says nothing of the board, which is the other's now."""
        world = ready()
        world.send(ClaimSeen("default/first"))
        assert world.condition("Connected") == ("Unknown", "DuplicateBoardID")
        assert world.condition("Synced") == ("Unknown", "DuplicateBoardID")
        assert world.condition("Healthy")[0] == "Unknown"

    def test_finalizer_comes_before_the_first_desired(self) -> None:
        """Nothing is retained for an object that could vanish without being cleaned up after."""
        world = World()
        world.object["metadata"]["finalizers"] = []
        world.start_bridge()
        world.connect_broker()
        assert world.object["metadata"]["finalizers"] == [FINALIZER]
        assert world.count("d") == 1
