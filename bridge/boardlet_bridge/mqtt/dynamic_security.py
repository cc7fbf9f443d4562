"""mosquitto's dynamic-security plugin: logins and rights at a broker whose files the bridge cannot reach.

The plugin takes commands on a topic and keeps clients and roles itself (mosquitto_ctrl_dynsec(1)). A board is a client
whose user name and client id are the board's id, with a role of its own, because roles of mosquitto 2.0 have no
placeholders. A client that has the role of its name is ours; any other is somebody's, and is left alone. Which password
a client has cannot be read back, so its description carries a mark of it: 32 bits of an HMAC, which lead to no password
of 128 random bits.

Nothing is remembered: `state` reads what there is, `changes` says what leads from there to what is wanted, and each
command is taken by the broker whole or not at all. Whoever died in between, on either side, is followed by the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from boardlet_wire.topic import topic

from boardlet_bridge.mqtt.credential import BOARD_READS, BOARD_WRITES, CLAIM_USER
from boardlet_bridge.mqtt.transport import ConnectionEnded, MqttSettings, Transport

CONTROL: Final = "$CONTROL/dynamic-security/v1"
RESPONSE: Final = CONTROL + "/response"
ROLE: Final = "boardlet:"
BRIDGE_ROLE: Final = "boardlet-bridge"
PAGE: Final = 100  # clients or roles in one answer: 80 KB
# Below the packet size that docs/operations.md gives a broker; a dozen boards, for which it stands still 0.1 s.
BATCH_BYTES: Final = 12_000
ANSWER_S: Final = 20.0
_SEND, _SUBSCRIBE, _RECEIVE = "publishClientSend", "subscribePattern", "publishClientReceive"

Command = dict[str, Any]
Right = tuple[str, str]  # type and topic; all of them allow


class ControlRefused(Exception):
    """The plugin refuses a command, or nobody answers; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Client:
    """What a broker tells of a client."""

    mark: str
    client_id: str
    roles: frozenset[str]


@dataclass(slots=True)
class State:
    """The clients and roles of a broker."""

    clients: dict[str, Client] = field(default_factory=dict)
    roles: dict[str, frozenset[Right]] = field(default_factory=dict)
    open: tuple[str, ...] = ()
    """Which of publishing and subscribing is allowed to everybody whom no role forbids it."""

    def foreign(self, logins: Iterable[str]) -> list[str]:
        """Those of the wanted users who are somebody else's clients."""
        return [user for user in logins if user in self.clients and not self._ours(user)]

    def done(self, command: Command) -> None:
        """What the broker has carried out is so."""
        user, role = command.get("username", ""), command.get("rolename", "")
        match command["command"]:
            case "createRole" | "modifyRole":
                self.roles[role] = frozenset((acl["acltype"], acl["topic"]) for acl in command["acls"])
            case "deleteRole":
                del self.roles[role]
            case "createClient" | "modifyClient":
                roles = frozenset(role["rolename"] for role in command["roles"])
                self.clients[user] = Client(command["textdescription"], command.get("clientid", ""), roles)
            case "deleteClient":
                del self.clients[user]

    def _ours(self, user: str) -> bool:
        return ROLE + user in self.clients[user].roles

    @property
    def ours(self) -> set[str]:
        """Users and roles of boards that a bridge has made."""
        made = {role.removeprefix(ROLE) for role in self.roles if role.startswith(ROLE)}
        return made | {user for user in self.clients if self._ours(user)}


def rights(user: str) -> frozenset[Right]:
    """What a board may do: publish on its own topics, hear its own, be they its own words; or the site's claim.

    One right to subscribe instead of four: the plugin writes all rights of all boards at each change of one.
    """
    if user == CLAIM_USER:
        return frozenset({(_SEND, "e/+/q"), (_SUBSCRIBE, "e/+/a")})
    writes = {(_SEND, topic(user, letter)) for letter in BOARD_WRITES}
    return frozenset(writes | {(_SUBSCRIBE, topic(user, "+"))})


def bridge_rights(claim: bool = False) -> frozenset[Right]:
    """What the bridge may do, beside administering the plugin; with `claim` also answer who asks to be enrolled."""
    writes = {(_SEND, f"b/+/+/{letter}") for letter in BOARD_READS + "s"}
    reads = {f"b/+/+/{letter}" for letter in BOARD_WRITES + "d"} | {"$SYS/#"}
    if claim:
        writes.add((_SEND, "e/+/a"))
        reads.add("e/+/q")
    return frozenset(writes | {(kind, name) for kind in (_SUBSCRIBE, _RECEIVE) for name in reads})


def mark(password: str) -> str:
    """What tells one password from another and nothing of either."""
    return "boardlet " + hmac.digest(password.encode(), b"boardlet login", hashlib.sha256).hex()[:8]


def changes(state: State, logins: Mapping[str, str], bridge: str) -> Iterator[tuple[Command, ...]]:
    """What leads from this state to these passwords by user, the bridge's own rights first; one tuple a user."""
    yield from _bridge(state, bridge, CLAIM_USER in logins)
    for user in sorted(state.ours - logins.keys()):
        gone: list[Command] = []
        if user in state.clients and not state.foreign([user]):
            gone.append({"command": "deleteClient", "username": user})
        if ROLE + user in state.roles:
            gone.append({"command": "deleteRole", "rolename": ROLE + user})
        yield tuple(gone)
    foreign = set(state.foreign(logins))
    for user in sorted(logins.keys() - foreign):
        wanted = [*_role(state, ROLE + user, rights(user)), *_client(state, user, logins[user])]
        if wanted:
            yield tuple(wanted)


def _bridge(state: State, bridge: str, claim: bool) -> Iterator[tuple[Command, ...]]:
    wanted = list(_role(state, BRIDGE_ROLE, bridge_rights(claim)))
    there = state.clients.get(bridge)
    if there is not None and BRIDGE_ROLE not in there.roles:
        # mosquitto ends a client's connections when its roles change: this one too. The next finds it done.
        wanted.append({"command": "addClientRole", "username": bridge, "rolename": BRIDGE_ROLE})
    if wanted:
        yield tuple(wanted)


def _role(state: State, name: str, wanted: frozenset[Right]) -> Iterator[Command]:
    have = state.roles.get(name)
    if have != wanted:
        acls = [{"acltype": kind, "topic": name, "priority": 0, "allow": True} for kind, name in sorted(wanted)]
        yield {"command": "createRole" if have is None else "modifyRole", "rolename": name, "acls": acls}


def _client(state: State, user: str, password: str) -> Iterator[Command]:
    # The claim's too: who has a client id of his choice throws off whom he likes.
    have, wanted = state.clients.get(user), Client(mark(password), user, frozenset({ROLE + user}))
    if have != wanted:
        yield {
            "command": "createClient" if have is None else "modifyClient",
            "username": user,
            "clientid": user,
            "password": password,
            "textdescription": wanted.mark,
            "roles": [{"rolename": ROLE + user}],
        }


def batches(groups: Iterable[tuple[Command, ...]]) -> Iterator[list[Command]]:
    """The commands in messages that a broker takes; those of one user stay together."""
    batch: list[Command] = []
    size = 0
    for group in groups:
        own = len(json.dumps(group))
        if batch and size + own > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch += group
        size += own
    if batch:
        yield batch


class ControlChannel:
    """A connection of its own to the plugin, for one use: `open`, then one request after the other, `close`."""

    def __init__(self, settings: MqttSettings, client_id: str) -> None:
        self._transport = Transport(settings, client_id, self._received, lambda _number: None)
        self._user = settings.user
        self._answer: asyncio.Future[list[Any]] | None = None
        self._asked = 0

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done, with the reason, when the connection is over."""
        return self._transport.ended

    async def open(self) -> None:
        """Connect; raises ConnectionEnded, ControlRefused."""
        await self._transport.open()
        if await self._transport.subscribe([RESPONSE]):
            raise ControlRefused(self._lacking)

    def close(self) -> None:
        self._transport.close()

    async def state(self) -> State:
        """All clients and roles; raises ConnectionEnded, ControlRefused."""
        try:
            return await self._state()
        except (AttributeError, KeyError, TypeError) as error:
            raise ControlRefused(f"what answers on {CONTROL} is not mosquitto's plugin: {error!r}") from error

    async def _state(self) -> State:
        state = State()
        for found in await self._list("listClients", "clients"):
            roles = frozenset(role["rolename"] for role in found.get("roles") or ())
            description = str(found.get("textdescription", ""))
            state.clients[found["username"]] = Client(description, str(found.get("clientid", "")), roles)
        for found in await self._list("listRoles", "roles"):
            # One that forbids, or whose order matters, is not as we make them, and stays different.
            acls = found.get("acls") or ()
            odd = {("odd", acl["topic"]) for acl in acls if not acl.get("allow") or acl.get("priority")}
            state.roles[found["rolename"]] = frozenset({(acl["acltype"], acl["topic"]) for acl in acls} | odd)
        [default] = await self._request([{"command": "getDefaultACLAccess"}])
        allowed = {acl["acltype"] for acl in default["data"]["acls"] if acl["allow"]}
        state.open = tuple(sorted(allowed & {_SEND, "subscribe"}))
        return state

    async def run(self, commands: list[Command], state: State) -> None:
        """Have commands carried out in their order, and the state follow; raises ConnectionEnded, ControlRefused."""
        for command, answer in zip(commands, await self._request(commands), strict=True):
            if "error" in answer:
                raise ControlRefused(f"the broker refuses {command['command']}: {answer['error']}")
            state.done(command)

    async def _list(self, command: str, key: str) -> list[Any]:
        found: list[Any] = []
        while True:
            page = {"command": command, "verbose": True, "count": PAGE, "offset": len(found)}
            [answer] = await self._request([page])
            if "data" not in answer:
                raise ControlRefused(f"the broker refuses {command}: {answer.get('error')}")
            found += answer["data"][key]
            if not answer["data"][key] or len(found) >= answer["data"]["totalCount"]:
                return found

    async def _request(self, commands: list[Command]) -> list[Any]:
        self._asked += 1
        self._answer = asyncio.get_running_loop().create_future()
        body = {"commands": [{**command, "correlationData": str(self._asked)} for command in commands]}
        self._transport.publish(CONTROL, json.dumps(body).encode())
        try:
            answers: list[Any] = await self._transport.first(self._answer, ANSWER_S, "")
        except ConnectionEnded as ended:
            if str(ended):
                raise
            raise ControlRefused(self._lacking) from ended
        if len(answers) != len(commands):
            raise ControlRefused(f"the broker answers {len(commands)} commands with {len(answers)}")
        return answers

    def _received(self, name: str, payload: bytes, _retained: bool) -> None:
        if name != RESPONSE or self._answer is None or self._answer.done():
            return
        try:
            answers = json.loads(payload)["responses"]
            mine = [a for a in answers if a.get("correlationData") == str(self._asked)]
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # of no plugin; the question stays unanswered, and that is said
        if mine:
            self._answer.set_result(mine)

    @property
    def _lacking(self) -> str:
        return (
            f"no answer on {CONTROL}: load mosquitto_dynamic_security.so in the broker, and give the user "
            f"{self._user} the role admin (docs/operations.md, A broker elsewhere)"
        )
