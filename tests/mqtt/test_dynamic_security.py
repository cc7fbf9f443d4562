"""mosquitto's dynamic-security plugin: from whatever is there to exactly who is wanted, and from there nothing more."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path

import broker as brokers
import paho.mqtt.client as paho
import pytest
from bench.usage import cpu_s
from boardlet_bridge.mqtt.credential import CLAIM_USER
from boardlet_bridge.mqtt.dynamic_security import (
    BATCH_BYTES,
    BRIDGE_ROLE,
    CONTROL,
    ROLE,
    Client,
    ControlChannel,
    ControlRefused,
    State,
    batches,
    bridge_rights,
    changes,
    mark,
    rights,
)
from boardlet_bridge.mqtt.session import MqttSettings
from boardlet_bridge.mqtt.transport import ConnectionEnded
from boardlet_bridge.runtime.dynamic_security import DynamicLogins
from boardlet_bridge.runtime.login import Logins
from boardlet_wire.topic import topic
from broker import Broker
from broker.access import BRIDGE
from fakes.login import Login, logs_in
from hypothesis import given
from hypothesis import strategies as st
from provision.missing import Missing
from waiting import until

IDS = [f"b{n:07d}" for n in range(5)]
LOGINS = st.dictionaries(st.sampled_from(IDS), st.sampled_from(["one", "two"]))
FOREIGN = Client("a dashboard", "", frozenset({"viewer"}))


def empty() -> State:
    return State({BRIDGE: Client("", "", frozenset({"admin"}))}, {"admin": frozenset()})


def follow(state: State, logins: dict[str, str], stop: int = 10**6) -> None:
    """Carry out the first so many commands."""
    commands = [command for group in changes(state, logins, BRIDGE) for command in group]
    for command in commands[:stop]:
        state.done(command)


@given(st.lists(st.tuples(LOGINS, st.integers(0, 12)), max_size=4), LOGINS, st.booleans())
def test_whoever_died_at_whatever_command_is_followed(
    earlier: list[tuple[dict[str, str], int]], logins: dict[str, str], foreign: bool
) -> None:
    """After changes that were broken off anywhere, the next one ends with the wanted logins, and is the last."""
    state = empty()
    if foreign:
        state.clients[IDS[0]] = FOREIGN
    for wanted, stop in earlier:
        follow(state, wanted, stop)
    follow(state, logins)
    mine = {user: password for user, password in logins.items() if not (foreign and user == IDS[0])}
    board = {user: Client(mark(password), user, frozenset({ROLE + user})) for user, password in mine.items()}
    others = {IDS[0]: FOREIGN} if foreign else {}
    assert {user: client for user, client in state.clients.items() if user != BRIDGE} == board | others
    assert state.roles == {"admin": frozenset(), BRIDGE_ROLE: bridge_rights()} | {ROLE + u: rights(u) for u in mine}
    state.clients[BRIDGE] = Client("", "", frozenset({"admin", BRIDGE_ROLE}))  # a new connection finds it so
    assert list(changes(state, logins, BRIDGE)) == []


def test_what_somebody_changed_is_put_right() -> None:
    """A right that was added, a role that was taken, a client id that was removed: one command each mends it."""
    good = empty()
    follow(good, {IDS[0]: "one"})
    good.clients[BRIDGE] = Client("", "", frozenset({"admin", BRIDGE_ROLE}))
    wider, freed, renamed = copy.deepcopy(good), copy.deepcopy(good), copy.deepcopy(good)
    wider.roles[ROLE + IDS[0]] |= {("publishClientSend", "#")}
    freed.clients[IDS[0]] = Client(mark("one"), "", frozenset({ROLE + IDS[0]}))
    renamed.clients[IDS[0]] = Client("edited", IDS[0], frozenset({ROLE + IDS[0], "admin"}))
    for state, command in ((wider, "modifyRole"), (freed, "modifyClient"), (renamed, "modifyClient")):
        [[only]] = changes(state, {IDS[0]: "one"}, BRIDGE)
        assert only["command"] == command
        state.done(only)
        assert state == good


def test_a_fleet_is_cut_into_packets_that_a_broker_takes() -> None:
    """Every command of a thousand boards is sent once, those of one board together, none beyond the packet size."""
    logins = {f"b{n:07d}": "p" * 32 for n in range(1000)}
    groups = list(changes(empty(), logins, BRIDGE))
    sent = list(batches(groups))
    assert [command for batch in sent for command in batch] == [command for group in groups for command in group]
    assert max(len(json.dumps(batch)) for batch in sent) <= BATCH_BYTES + 500
    assert len(sent) < 130


def test_a_mark_tells_nothing_of_a_password() -> None:
    """The mark is of the whole password, and is no part of it."""
    digits = "0123456789abcdef0123456789abcdef"
    assert mark(digits) != mark(digits[:-1])
    assert mark(digits).split()[1] not in digits


@pytest.fixture
def broker(broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[Broker]:
    if broker_programs.name != "mosquitto":
        pytest.skip("mochi-mqtt has no plugin dynamic-security")
    made = Broker(tmp_path / "broker", broker_programs)
    made.add_user(BRIDGE, "secret")
    made.dynamic = True
    (tmp_path / "password").write_text("secret\n")
    try:
        assert broker_programs.plugin
    except Missing as missing:
        pytest.skip(str(missing))
    with made:
        yield made


def looped(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """A test that runs on a loop of its own."""

    @wraps(test)
    def run(**fixtures: object) -> None:
        asyncio.run(test(**fixtures))

    return run


def settings(broker: Broker) -> MqttSettings:
    return MqttSettings("127.0.0.1", broker.port, BRIDGE, broker.folder.parent / "password")


@asynccontextmanager
async def keeper(broker: Broker, **numbers: int) -> AsyncIterator[tuple[Logins, DynamicLogins]]:
    """The bridge's part, with these boards; cancelled in the end, whatever it does just then."""
    logins = Logins(lambda board, number: f"{board}-{number}")
    made = DynamicLogins(settings(broker), logins, lambda reason, said: None)
    for board, number in numbers.items():
        logins.admit(board, number)
    task = asyncio.create_task(made.run())
    try:
        yield logins, made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def mend(broker: Broker, copied: bytes) -> None:
    """What docs/operations.md says of a broker that was killed while it wrote its file."""
    try:
        json.loads(broker.dynamic_file.read_text())
    except ValueError:
        broker.dynamic_file.write_bytes(copied)


async def read(broker: Broker) -> State:
    channel = ControlChannel(settings(broker), "reader")
    try:
        await channel.open()
        return await channel.state()
    finally:
        channel.close()


@looped
async def test_logins_come_change_and_go(broker: Broker) -> None:
    """A board is let in by its password under its own client id alone, thrown off by a new one, and by its removal."""
    one, two = IDS[:2]
    async with keeper(broker, **{one: 1}) as (logins, kept):
        await until(lambda: not kept.why and logs_in(broker.board_port, one, f"{one}-1"))
        assert not logs_in(broker.board_port, one, "wrong")
        with Login(broker.board_port, one, f"{one}-1") as login:
            logins.admit(two, 1)
            await until(lambda: logs_in(broker.board_port, two, f"{two}-1"))
            assert not login.gone, "who is not concerned stays"
            logins.admit(one, 2)
            await until(lambda: login.gone)
        await until(lambda: logs_in(broker.board_port, one, f"{one}-2"))
        assert not logs_in(broker.board_port, one, f"{one}-1")
        logins.admit(one, 0)
        await until(lambda: not logs_in(broker.board_port, one, f"{one}-2"))
    state = await read(broker)
    assert state.ours == {two}
    assert not state.open


@looped
async def test_broken_off_anywhere_it_ends_right(broker: Broker) -> None:
    """Bridges that die and a broker that is killed in the middle of changes: the last set is there, exactly."""
    copied = broker.dynamic_file.read_bytes()
    fleet = {f"b{n:07d}": 1 for n in range(150)}
    async with keeper(broker, **fleet):
        await until(lambda: logs_in(broker.board_port, "b0000020", "b0000020-1"))
    half = await read(broker)
    assert 20 <= len(half.ours) < 150, "it died on its way"
    changed = dict.fromkeys(list(fleet)[75:], 2)
    async with keeper(broker, **changed):
        await until(lambda: not logs_in(broker.board_port, "b0000010", "b0000010-1"))
        broker.kill()
    mend(broker, copied)
    broker.start()
    async with keeper(broker, **changed) as (logins, kept):
        await until(lambda: not kept.why)
        broker.kill()
        broker.start()
        logins.admit("b0000149", 3)
        await until(lambda: logs_in(broker.board_port, "b0000149", "b0000149-3"))
    state = await read(broker)
    wanted = {board: f"{board}-{number}" for board, number in {**changed, "b0000149": 3}.items()}
    assert state.ours == set(wanted)
    assert list(changes(state, wanted, BRIDGE)) == []


@looped
async def test_who_has_only_the_claim_asks_and_throws_nobody_off(broker: Broker) -> None:
    """With a claim its user is let in under its own client id alone, may ask and hear answers, and nothing else."""
    logins = Logins(lambda board, _: board, "claimed")
    logins.admit(IDS[0], 1)
    made = DynamicLogins(settings(broker), logins, lambda *_: None)
    task = asyncio.create_task(made.run())
    try:
        await until(lambda: not made.why)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    state = await read(broker)
    assert state.roles[ROLE + CLAIM_USER] == rights(CLAIM_USER)
    assert not [name for _, name in rights(CLAIM_USER) if not name.startswith("e/")]
    with Login(broker.port, IDS[0], IDS[0], IDS[0]) as board:
        assert board.up
        with Login(broker.port, CLAIM_USER, "claimed", IDS[0]) as thief:
            assert not thief.up, "that client id is the board's"
        assert not board.gone
        with Login(broker.port, CLAIM_USER, "claimed", CLAIM_USER) as asks:
            assert asks.up
    assert list(changes(state, {CLAIM_USER: "claimed", IDS[0]: IDS[0]}, BRIDGE)) == []


@pytest.mark.parametrize("data", [{}, {"clients": 5}, {"clients": [{}], "totalCount": 1}, {"clients": ["x"]}, "no"])
@looped
async def test_a_broker_that_answers_anything_is_told(data: object) -> None:
    """What no plugin would answer, as a stolen broker may, is a reason to try again later, and no end of the bridge."""
    channel = ControlChannel(MqttSettings("127.0.0.1", 1), "x")

    async def request(_commands: object) -> list[object]:
        return [{"command": "listClients", "data": data}]

    channel._request = request  # type: ignore[method-assign, assignment]
    with pytest.raises(ControlRefused, match="is not mosquitto's plugin"):
        await channel.state()


@looped
async def test_one_replica_keeps_the_logins(broker: Broker) -> None:
    """Who is not to keep them changes nothing and is well; when it is its turn it brings them in step at once."""
    turn = [False]
    logins = Logins(lambda board, _: board)
    logins.admit(IDS[0], 1)
    made = DynamicLogins(settings(broker), logins, lambda *_: None, lambda: turn[0])
    task = asyncio.create_task(made.run())
    try:
        await until(lambda: not made.why)
        assert (await read(broker)).ours == set()
        turn[0] = True
        made.again()
        await until(lambda: logs_in(broker.board_port, IDS[0], IDS[0]), 4)
        turn[0] = False
        logins.admit(IDS[0], 0)
        await until(lambda: not logins.changed.is_set())
        assert logs_in(broker.board_port, IDS[0], IDS[0]), "it is another's to take away"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@looped
async def test_a_file_that_a_power_cut_has_spoilt_is_made_anew(broker: Broker) -> None:
    """mosquitto 2.0.11 writes its file in place. Empty, it is replaced by the first copy, and the bridge fills it."""
    copied = broker.dynamic_file.read_bytes()
    async with keeper(broker, **{IDS[0]: 1}) as (_, kept):
        await until(lambda: not kept.why)
        broker.kill()
        broker.dynamic_file.write_text("")
        mend(broker, copied)
        broker.start()
        await until(lambda: logs_in(broker.board_port, IDS[0], f"{IDS[0]}-1"))


@looped
async def test_others_clients_are_left_alone(broker: Broker) -> None:
    """A client that somebody else made keeps its password, be there a Board of its name; and goes with no Board."""
    channel = ControlChannel(settings(broker), "somebody")
    await channel.open()
    state = await channel.state()
    for name in ("dashboard", IDS[0]):
        own = {"username": name, "clientid": name, "password": "own", "textdescription": "", "roles": []}
        await channel.run([{"command": "createClient", **own}], state)
    channel.close()
    async with keeper(broker, **{IDS[0]: 1, IDS[1]: 1}):
        await until(lambda: logs_in(broker.board_port, IDS[1], f"{IDS[1]}-1"))
    assert logs_in(broker.board_port, IDS[0], "own")
    assert logs_in(broker.board_port, "dashboard", "own")
    assert not logs_in(broker.board_port, IDS[0], f"{IDS[0]}-1")


@looped
async def test_a_broker_without_the_plugin_is_told(broker_programs: brokers.Programs, tmp_path: Path) -> None:
    """Where nobody answers, the message names the plugin and the role, and nothing else happens."""
    made = Broker(tmp_path / "broker", broker_programs)
    made.add_user(BRIDGE, "secret")
    (tmp_path / "password").write_text("secret\n")
    patch = pytest.MonkeyPatch()
    patch.setattr("boardlet_bridge.mqtt.dynamic_security.ANSWER_S", 0.5)
    try:
        with made:
            async with keeper(made, **{IDS[0]: 1}) as (_, kept):
                await until(lambda: "mosquitto_dynamic_security.so" in kept.why)
            (tmp_path / "password").write_text("wrong\n")
            with pytest.raises(ConnectionEnded, match="refuses the bridge"):
                await read(made)
    finally:
        patch.undo()


@looped
async def test_a_board_may_use_its_own_topics_alone(broker: Broker) -> None:
    """What a board publishes elsewhere reaches nobody, its foreign subscriptions and client ids are refused."""
    one, two = IDS[:2]
    async with keeper(broker, **{one: 1, two: 1}) as (_, kept):
        await until(lambda: not kept.why)
    heard: list[str] = []
    granted: list[bool] = []
    bridge = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="listener")
    bridge.username_pw_set(BRIDGE, "secret")
    bridge.on_message = lambda c, u, m: heard.append(m.topic)
    board = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=one)
    board.username_pw_set(one, f"{one}-1")
    board.on_subscribe = lambda c, u, mid, codes, p: granted.extend(not code.is_failure for code in codes)
    for client in (bridge, board):
        client.connect("127.0.0.1", broker.port)  # where the listener itself ties no client id to a user
        client.loop_start()
    try:
        await until(lambda: bridge.is_connected() and board.is_connected())
        bridge.subscribe("b/#", 1)
        for name in (topic(one, "d"), "#", topic(two, "d"), "b/+/+/d"):
            board.subscribe(name, 1)
        await until(lambda: len(granted) == 4)
        assert granted == [True, False, False, False]
        for name in (topic(two, "s"), topic(two, "r"), topic(one, "d"), topic(one, "c"), CONTROL):
            board.publish(name, b"{}", 1)
        board.publish(topic(one, "s"), b"own", 1)
        await until(lambda: heard != [])
        assert heard == [topic(one, "s")]
        for taken in (one, "other", ""):
            with Login(broker.port, two, f"{two}-1", taken) as thief:
                assert not thief.up, "whose client id this is, or nobody's"
        assert board.is_connected()
    finally:
        for client in (bridge, board):
            client.disconnect()
            client.loop_stop()


@looped
async def test_a_fleet_is_let_in_and_changed(broker: Broker) -> None:
    """All of $BOARDLET_LOGINS boards (100) are let in, a change takes a second at most, a new bridge finds them right.

    With `-s` it prints what docs/benchmarks.md has.
    """
    count = int(os.environ.get("BOARDLET_LOGINS", "100"))
    fleet = {f"b{n:07d}": 1 for n in range(count)}
    last, clock = list(fleet)[-1], time.monotonic
    async with keeper(broker, **fleet) as (logins, kept):
        began = clock()
        await until(lambda: not kept.why, 600)
        filled = clock() - began
        taken = []
        for number in range(2, 7):
            began = clock()
            logins.admit(last, number)
            await until(lambda n=number: logs_in(broker.board_port, last, f"{last}-{n}"))  # type: ignore[misc]
            taken.append(clock() - began)
    cpu = cpu_s(broker.process)
    async with keeper(broker, **{**fleet, last: 6}) as (_, kept):
        began = clock()
        await until(lambda: not kept.why, 60)
        found = clock() - began
    size = broker.dynamic_file.stat().st_size
    print(
        f"{count} boards let in in {filled:.2f} s, the broker's CPU {cpu:.2f} s; a change after {sorted(taken)[2]:.3f} "
        f"s, at most {max(taken):.3f} s; a new bridge finds them in {found:.2f} s; the file has {size / 1000:.0f} KB"
    )
    assert max(taken) < 1
