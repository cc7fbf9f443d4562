"""The files of `boardlet flash`, without a cluster: what is written, skipped and removed, and what refuses a plan."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from boardimage import Image
from boardimage import image as made
from boardlet_bridge.core.board import new_board
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.root_key import only
from boardlet_bridge.core.state import Limits
from boardlet_cli import flash
from boardlet_cli.device import Device, DeviceError
from boardlet_cli.flash import Plan
from boardlet_cli.identity import ID_FORM, identify, key_number
from boardlet_cli.order import FlashFailed, Order
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from provision.missing import Missing
from provision.process import free_port
from virtualboard.pty import PtyBoard

BOARD_ID = "k7m2q9xa"
SMALL = """
import builtins, os
_import = __import__
class Small:
    listdir = os.listdir
    statvfs = lambda path: (512, 512, 100, 40, 40, 0, 0, 0, 0, 255)
builtins.__import__ = lambda name, *more: Small if name == "os" else _import(name, *more)
"""


@cache
def image() -> Image:
    """The agent's files, made once: a board that was reset writes to its flash two seconds later."""
    return made()


@pytest.mark.parametrize("proven", [0, 1, 2, 3])
@pytest.mark.parametrize(("wanted", "revoked"), [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)])
def test_the_number_that_is_flashed_is_the_one_that_is_let_in(proven: int, wanted: int, revoked: int) -> None:
    """As the bridge decides it, also while the next key is on its way over the air; none where all are revoked."""
    keys = only(bytes(32))
    spec = {"boardID": BOARD_ID, "credential": {"keyNumber": wanted, "revokedKeyNumber": revoked}}
    found = {"spec": spec, "status": {"board": {"keyNumber": proven}} if proven else {}}
    lets_in = new_board(BOARD_ID, KeyRing.of(keys, bytes(16)), Limits(), found).key_number
    if lets_in:
        assert key_number(Order(None, "g1", "greenhouse", "", 0, keys), found) == lets_in
    else:
        with pytest.raises(FlashFailed, match="revoked"):
            key_number(Order(None, "g1", "greenhouse", "", 0, keys), found)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port where a broker could be."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(30)
        yield made


@pytest.fixture
def order(board: PtyBoard, listener: socket.socket) -> Order:
    """What a user asks for."""
    try:
        image()
    except Missing as missing:
        pytest.skip(str(missing))
    port = listener.getsockname()[1]
    return Order(board.port, "g1", "greenhouse", "127.0.0.1", port, only(secrets.token_bytes(32)), BOARD_ID)


def carry_out(order: Order) -> Plan:
    """Plan and write, as the command does."""
    with Device(str(order.port)) as device:
        plan = look(order, device)
        flash.write(plan, device, lambda path, written: None)
    return plan


def look(order: Order, device: Device) -> Plan:
    """Everything before the first change."""
    return flash.plan(order, device, identify(order, flash.configuration(device), None))


def on_flash(board: PtyBoard) -> dict[str, bytes]:
    """Every file of the board."""
    return {str(p.relative_to(board.flash)): p.read_bytes() for p in board.flash.rglob("*") if p.is_file()}


def config(board: PtyBoard) -> dict[str, object]:
    """The board's configuration."""
    read: dict[str, object] = json.loads((board.flash / "config.json").read_text())
    return read


def test_a_flashed_board_boots_and_calls_its_broker(board: PtyBoard, order: Order, listener: socket.socket) -> None:
    """Our own main.py starts out of the .mpy files, and connects as the board that it was made."""
    carry_out(replace(order, extra={"grace_s": 0}))
    listener.accept()[0].close()  # the plan's look at the broker
    with listener.accept()[0] as connection:
        connection.settimeout(10)
        said = connection.recv(1024)
    key = board_key(order.root_keys[0].key, BOARD_ID, 1)
    assert said[0] == 0x10, "an MQTT CONNECT"
    assert BOARD_ID.encode() in said
    assert seal.half_key(key, seal.PASSWORD).hex()[:32].encode() in said


def test_what_is_written(board: PtyBoard, order: Order) -> None:
    """The compiled agent and the configuration, and nothing else."""
    with Device(str(order.port)) as device:
        plan = look(order, device)
        assert on_flash(board) == {}, "a plan writes nothing"
        flash.write(plan, device, lambda path, written: None)
        found = on_flash(board)
    assert {path: content for path, content in found.items() if path != "config.json"} == image()
    root = order.root_keys[0].key
    assert json.loads(found["config.json"]) == {
        "id": BOARD_ID,
        "key": board_key(root, BOARD_ID, 1).hex(),
        "key_number": 1,
        "host": "127.0.0.1",
        "port": order.broker_port,
    }


def test_what_is_right_is_skipped(board: PtyBoard, order: Order) -> None:
    """Flashing again writes nothing; one file that differs is written alone."""
    carry_out(order)
    times = {path: (board.flash / path).stat().st_mtime_ns for path in on_flash(board)}
    again = carry_out(order)
    assert (again.write, again.kept, again.remove, again.config_changes) == ({}, len(image()), (), False)
    assert {path: (board.flash / path).stat().st_mtime_ns for path in times} == times
    (board.flash / "boardlet/store.mpy").write_bytes(b"damaged")
    assert list(carry_out(order).write) == ["boardlet/store.mpy"]


def test_old_files_go_after_the_new_ones_came(board: PtyBoard, order: Order) -> None:
    """Sources beside the compiled agent go, other people's files stay; a cut in between leaves the old agent whole."""
    for path in ("boardlet/agent.py", "boardlet/gone.mpy", "drivers/own.txt", "boardlet/link.mpy.new", "app.py"):
        (board.flash / path).parent.mkdir(exist_ok=True)
        (board.flash / path).write_text("old = 1\n")
    seen: list[str] = []

    def told(path: str, written: int) -> None:
        seen.append(path)
        assert (board.flash / "boardlet/agent.py").exists()
        assert not (board.flash / "config.json").exists()

    with Device(str(order.port)) as device:
        plan = look(order, device)
        assert set(plan.remove) == {"boardlet/agent.py", "boardlet/gone.mpy", "boardlet/link.mpy.new"}
        flash.write(plan, device, told)
        found = on_flash(board)
    assert seen[-1] == "main.py"
    assert set(found) == {*image(), "config.json", "drivers/own.txt", "app.py"}


def test_a_cut_flash_is_gone_on_with(board: PtyBoard, order: Order) -> None:
    """Power lost between two files: there is no configuration yet, and the next flash writes what is missing."""

    def cut(path: str, written: int) -> None:
        if path == "boardlet/link.mpy":
            board.kill()

    with pytest.raises(DeviceError), Device(str(order.port)) as device:
        flash.write(look(order, device), device, cut)
    assert "config.json" not in on_flash(board)
    rest = carry_out(order)
    assert 0 < rest.kept < len(image())
    assert set(on_flash(board)) == {*image(), "config.json"}


def test_identity_and_wifi_are_kept(board: PtyBoard, order: Order) -> None:
    """A board keeps its id and network unless others are named; a new board gets an id of its own."""
    carry_out(replace(order, wifi=("site", "secret")))
    carry_out(replace(order, board_id=None))
    assert (config(board)["id"], config(board)["wifi"]) == (BOARD_ID, ["site", "secret"])
    carry_out(replace(order, wifi=("other", "")))
    assert config(board)["wifi"] == ["other", ""]
    (board.flash / "config.json").unlink()
    made = carry_out(replace(order, board_id=None)).board_id
    assert ID_FORM.fullmatch(made)
    assert made != BOARD_ID


@pytest.mark.parametrize(
    ("held", "board_id", "words"),
    [
        ("{", None, "is damaged"),
        ("[1]", None, "is damaged"),
        ('{"id": ["x"]}', None, "an id is 8 to 16"),
        (None, "Greenhouse-7", "an id is 8 to 16"),
        ('{"id": "aaaaaaaa"}', BOARD_ID, "the ids differ"),
    ],
)
def test_identities_that_are_none(
    board: PtyBoard, order: Order, held: str | None, board_id: str | None, words: str
) -> None:
    """What a board holds, and what a user asks, is checked before anything is written."""
    if held:
        (board.flash / "config.json").write_text(held)
    with pytest.raises(FlashFailed, match=words):
        carry_out(replace(order, board_id=board_id))
    assert set(on_flash(board)) <= {"config.json"}


def test_too_little_space(board: PtyBoard, order: Order) -> None:
    """A flash that cannot hold the agent is refused before anything is written to it."""
    (board.flash / "boot.py").write_text(SMALL)
    with pytest.raises(FlashFailed, match=r"has 20 KiB free, \d+ are needed"):
        carry_out(order)
    assert set(on_flash(board)) == {"boot.py"}


@pytest.mark.parametrize(("host", "number"), [("127.0.0.1", 0), ("127.0.0.1", 99999), ("", 1883), ("a..b", 1883)])
def test_no_broker(board: PtyBoard, order: Order, host: str, number: int) -> None:
    """A broker that cannot be reached, or is no address at all, is named."""
    with pytest.raises(FlashFailed, match=f"no broker at {host}:"):
        carry_out(replace(order, broker_host=host, broker_port=number or free_port()))
    assert on_flash(board) == {}
