"""One word for one mistake, wherever it is found: by the API server, the bridge, or the board itself."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from boardlet_bridge.core.board import new_board
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.desired import build_state
from boardlet_bridge.core.model import compile_model
from boardlet_bridge.core.reason import PROPERTY_REASONS
from boardlet_bridge.core.state import Limits
from boardlet_bridge.core.value import ModelError
from boardlet_cli.cluster import Cluster
from bridge_side import BOARD_ID, ROOT, Peer
from virtualboard import VirtualBoard

INTEGER = {"type": "Integer", "minimum": -10, "maximum": 10}
RECORD = {"type": "Record", "fields": [{"name": "max", "type": "Number", "maximum": 35}]}
ARRAY = {"type": "Array", "items": {"type": "Integer", "maximum": 9}, "maxItems": 2}
ENUM = {"type": "Enum", "values": ["Idle", "Heat"]}
# By the property's name: its type, a value that is none of it as a user writes it and as the wire has it, and the word.
MISTAKES: dict[str, tuple[dict[str, Any], Any, Any, str]] = {
    "boolean": ({"type": "Boolean"}, "on", "on", "WrongType"),
    "low": (INTEGER, -11, -11, "OutOfRange"),
    "high": (INTEGER, 11, 11, "OutOfRange"),
    "wide": ({"type": "Integer"}, 2**31, 2**31, "OutOfRange"),
    "half": ({"type": "Integer"}, 1.5, 1.5, "WrongType"),
    "truth": ({"type": "Integer"}, True, True, "WrongType"),
    "number": ({"type": "Number", "maximum": 35}, 40, 40.0, "OutOfRange"),
    "text": ({"type": "Number"}, "40", "40", "WrongType"),
    "long": ({"type": "String", "maxLength": 4}, "Grün", "Grün", "TooLong"),
    "digits": ({"type": "String"}, 7, 7, "WrongType"),
    "word": (ENUM, "Cool", 2, "OutOfRange"),
    "place": (ENUM, 1, "Heat", "WrongType"),
    "bytes": ({"type": "Bytes", "maxLength": 2}, "AAAA", b"\0\0\0", "TooLong"),
    "record": (RECORD, [40], 40.0, "WrongType"),
    "items": (ARRAY, [1, 2, 3], [1, 2, 3], "TooLong"),
    "scalar": (ARRAY, 1, 1, "WrongType"),
    "field": (RECORD, {"max": 40}, [40.0], "OutOfRange"),
    "fields": (RECORD, {"min": 4}, [4.0, 4.0], "WrongType"),
    "item": (ARRAY, [1, 10], [1, 10], "OutOfRange"),
}
# The API server does not look inside Records and Arrays; the bridge does, and says it in the model's condition.
INSIDE = {"field", "fields", "item"}
WORDS = {name: word for name, (*_, word) in MISTAKES.items()}
SPEC = {
    "properties": [
        {"name": name, "index": i, "access": "ReadWrite", **type_}
        for i, (name, (type_, *_)) in enumerate(MISTAKES.items())
    ]
}


def with_default(name: str) -> dict[str, Any]:
    """A model whose one property has the mistake as its default."""
    type_, bad, _, _ = MISTAKES[name]
    return {"properties": [{"name": name, "index": 0, "access": "ReadWrite", "default": bad, **type_}]}


def word_in(name: str, message: str) -> str:
    found = re.search(rf"property '{name}': its default .*\((\w+)\)", message)
    return found[1] if found else message


def test_the_api_server(cluster: Cluster) -> None:
    """A default that is none of its property's values is refused by the API server, with property, cause and word."""

    def create(name: str) -> str:
        body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "BoardModel", "metadata": {"name": name}}
        given = json.dumps({**body, "spec": with_default(name)})
        return cluster.run("create", "--dry-run=server", "-f", "-", stdin=given, check=False).stderr

    deadline = time.monotonic() + 30
    while not create("low"):  # a policy that has just been installed takes a moment to be in force
        assert time.monotonic() < deadline
    said = {name: word_in(name, create(name)) for name in WORDS.keys() - INSIDE}
    assert said == {name: word for name, word in WORDS.items() if name not in INSIDE}


def test_the_api_server_warns(cluster: Cluster) -> None:
    """Who asks a Board for such a value is warned at once, in the same words, and the Board is taken all the same."""
    model = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "BoardModel", "metadata": {"name": "m"}}
    more = {"name": "measured", "index": 99, "type": "Boolean", "access": "ReadOnly"}
    full = {"properties": [*SPEC["properties"], more]}
    cluster.run("create", "-f", "-", stdin=json.dumps({**model, "spec": full}))

    def warned(name: str, bad: Any) -> str:
        spec = {"boardID": BOARD_ID, "modelRef": {"name": "m"}, "properties": {name: bad}}
        body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": {"name": "b"}, "spec": spec}
        said = cluster.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body)).stderr
        found = re.findall(rf"^Warning: .*property '{name}': .*\((\w+)\)$", said, re.MULTILINE)
        return " ".join(found) or said

    deadline = time.monotonic() + 30
    while not warned("low", -11):  # the policy has to hear of the model first
        assert time.monotonic() < deadline
    said = {name: warned(name, bad) for name, (_, bad, _, _) in MISTAKES.items()}
    assert said == {name: "" if name in INSIDE else word for name, word in WORDS.items()}
    assert warned("measured", True) == "ReadOnly"
    assert warned("nothing", True) == "UnknownProperty"
    assert warned("low", -10) == ""


def test_the_compiler() -> None:
    """The bridge says the same word of each of these defaults where no API server has looked."""
    said = {}
    for name in WORDS:
        try:
            compile_model("m", with_default(name))
        except ModelError as error:
            said[name] = word_in(name, str(error))
    assert said == WORDS


def test_the_bridge() -> None:
    """The bridge says the same word of each value that a Board asks for, and asks the board for none of them."""
    board = new_board(BOARD_ID, KeyRing(ROOT, bytes(16)), Limits())
    board.spec = {"properties": {name: bad for name, (_, bad, _, _) in MISTAKES.items()}}
    _, asked, errors = build_state(board, compile_model("m", SPEC))
    assert {error.property: error.reason for error in errors} == WORDS
    assert asked == {}


def test_the_board(make_board: Callable[..., VirtualBoard], peer: Peer) -> None:
    """A board that is asked for each of them all the same says the same word, and applies none."""
    model = compile_model("m", SPEC)
    make_board().start()
    peer.here()
    peer.adopt(model, {i: wire for i, (_, _, wire, _) in enumerate(MISTAKES.values())})
    full = peer.full()
    assert {name: PROPERTY_REASONS[full[-3][i]][0] for i, name in enumerate(WORDS)} == WORDS
    assert not [key for key in full if key >= 0]
