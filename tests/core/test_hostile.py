"""What a board with its own key, or its user, can say at worst: every step ends, and the status can still be written.

A stolen board seals whatever it likes. A step that raised would stop the other boards; a status that the API server
does not take would leave the old one standing, which is a lie.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

import cbor2
import pytest
from boardlet_bridge.core.event import Message
from boardlet_wire import seal
from boardlet_wire.topic import topic
from hypothesis import given
from hypothesis import strategies as st
from peer import BOARD_ID, World, ready

INT64 = 2**63


def writable(status: Any) -> None:
    """Fail on what JSON, the API server's numbers or crds/boards.yaml do not allow."""
    json.dumps(status, allow_nan=False).encode()
    for value in status.get("reported", {}).values():
        assert isinstance(value, str) or math.isfinite(value), value
        assert type(value) is not int or abs(value) < INT64, value
    assert status.get("desired", {}).get("revision", 0) < 2**31
    assert 0 <= status.get("observedGeneration", 0) < INT64
    for key, value in status.get("board", {}).items():
        assert not isinstance(value, int) or 0 <= value < INT64, key
        assert len(str(value)) <= 1024
    for error in status.get("errors", []):
        assert len(error["property"]) <= 64
        assert len(error["message"]) <= 1024


def sealed(world: World, letter: str, raw: bytes) -> Message:
    context = b"" if letter == "s" else world.side.epoch
    half = world.side.half(seal.UP)
    return Message(letter, raw + seal.tag(half, topic(BOARD_ID, letter), context, raw, seal.UP_TAG))


leaves = (
    st.integers()
    | st.integers(min_value=-(2**70), max_value=2**400)
    | st.floats()
    | st.text(max_size=80)
    | st.binary(max_size=12)
    | st.booleans()
    | st.none()
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(-9, 20), inner, max_size=4),
    max_leaves=6,
)
bodies = st.dictionaries(st.integers(-9, 20), values, max_size=8)


@given(st.lists(st.tuples(st.sampled_from("srw"), bodies), max_size=6), st.booleans())
def test_no_sealed_message_stops_a_step_or_spoils_the_status(
    messages: list[tuple[str, dict[int, Any]]], keep: bool
) -> None:
    """Whatever a board seals, the step ends and the status can be written."""
    world = ready()
    for letter, body in messages:
        if keep:  # near to a right message: most fields as they should be
            body = {
                "s": {0: 1, 1: 1, 2: world.side.epoch, 3: 1, 11: 1024},
                "r": {-1: world.side.sequence},
                "w": {0: b"12345678", 1: 0, 2: 9},
            }[letter] | body
        world.send(sealed(world, letter, cbor2.dumps(body)))
        writable(world.status)
        world.wait(3)
        writable(world.status)


@given(st.binary(max_size=64))
def test_no_sealed_garbage_stops_a_step(raw: bytes) -> None:
    """Bytes that are no CBOR, or CBOR that no board sends, are refused and change nothing."""
    world = ready()
    for letter in "srw":
        world.send(sealed(world, letter, raw))
        writable(world.status)


HUGE = 10**5000  # longer than Python prints


@pytest.mark.parametrize(
    "body",
    [
        {2: HUGE},
        {0: HUGE},
        {3: HUGE},
        {-2: [b"123456", 1, b"12345678", HUGE]},
        {-2: [b"123456", 1, b"12345678", -1]},
        {-3: {0: HUGE}},
        {-6: [0, b"", HUGE]},
        {2: datetime.now(UTC)},
        {2: re.compile("(a+)+$")},
    ],
    ids=["number", "boolean", "text", "generation", "past", "code", "refusal", "date", "pattern"],
)
def test_what_the_protocol_has_no_items_for_is_malformed(body: dict[int, Any]) -> None:
    """Integers over 32 bits, negative generations and CBOR's tags are refused, and told as Malformed."""
    world = ready()
    before = world.status["reported"]
    world.send(world.side.report(body))
    assert world.refused == ["malformed"]
    assert world.condition("MessagesRefused") == ("True", "Malformed")
    assert world.status["reported"] == before


def test_a_value_that_contains_itself_is_malformed() -> None:
    """CBOR's shared references can make a list that has no end."""
    world = ready()
    world.send(sealed(world, "r", b"\xa2\x20" + cbor2.dumps(world.side.sequence) + b"\x02\xd8\x1c\x81\xd8\x1d\x00"))
    assert world.refused == ["malformed"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, 2**32 - 1])
def test_a_number_that_is_none_is_an_error_of_its_property(value: float) -> None:
    """A sensor's NaN, or a number over single precision, takes nothing else with it."""
    world = ready()
    world.side.values[2] = value
    world.send(world.side.here(), world.side.report({2: value, 1: 20.0}))
    writable(world.status)
    assert world.status["reported"]["target"] == 20.0
    if value != 2**32 - 1:  # single precision has a neighbour of it
        assert [(e["property"], e["reason"]) for e in world.status["errors"]] == [("temp", "OutOfRange")]
        assert "temp" not in world.status["reported"]


def test_text_of_a_board_cannot_move_a_terminals_cursor() -> None:
    """Escape sequences of a board reach neither status.reported nor a message."""
    world = ready()
    world.edit(label="calm")
    world.send(world.side.report({-2: world.side.applied, 3: "\x1b[2Jred\x07\x00"}))
    world.send(world.side.here(_16="Traceback\n\x1b[31m\x9b", _8="\x1b]0;title\x07"))
    text = json.dumps(world.status, ensure_ascii=False)
    assert "red" in text
    assert not any(ord(c) in {*range(32), *range(127, 160)} for c in text)


def test_a_board_that_claims_the_last_revision_cannot_freeze_its_status() -> None:
    """Nothing can be minted above it; the status says so, and can be written."""
    world = ready()
    uid = world.side.applied[0] if world.side.applied else b""
    world.send(world.side.report({-2: [uid, 2**31 - 1, b"12345678", 1]}))
    writable(world.status)
    assert world.condition("Synced") == ("False", "RevisionsExhausted")
    world.edit(led=False)
    writable(world.status)
    assert world.condition("Synced") == ("False", "RevisionsExhausted")


def test_a_board_with_another_key_is_told_from_one_that_was_never_there() -> None:
    """A wrong root key, or a board that was flashed elsewhere, does not read as a board without power."""
    world = World()
    world.side.key = bytes(32)
    world.send(world.side.here())
    world.connect_broker()
    world.wait(400)  # longer than MessagesRefused is shown
    connected = next(c for c in world.status["conditions"] if c["type"] == "Connected")
    assert (connected["status"], connected["reason"]) == ("False", "NeverSeen")
    assert "wrong seal" in connected["message"]
    assert "root_key_file" in connected["message"]
    assert "wrong seal" not in next(c["message"] for c in unheard().status["conditions"] if c["type"] == "Connected")


def unheard() -> World:
    world = World()
    world.connect_broker()
    world.wait(400)
    return world


def test_nothing_is_said_to_be_sent_before_the_finalizer_is_there() -> None:
    """A bridge that may not patch boards sends nothing, and says what it waits for."""
    world = World()
    world.object["metadata"]["finalizers"] = []
    world.start_bridge()
    world.finalizers_refused = True
    world.connect_broker()
    world.send(world.side.here())
    world.answer()
    world.wait(5)
    assert world.count("d") == 0
    synced = next(c for c in world.status["conditions"] if c["type"] == "Synced")
    assert (synced["status"], synced["reason"]) == ("False", "Pending")
    assert "may the bridge patch boards?" in synced["message"]
