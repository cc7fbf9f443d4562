"""Enrols boards that have only the site's claim: requests from the broker, Enrollments and Boards at the API server.

Each request is answered from the objects as they are then, one after the other and so many a second, so that a storm of
them costs the control plane no more. Nothing is kept but which grants still wait for their board's first word.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
import yaml
from boardlet_wire import claim
from boardlet_wire.names import GrantCode

from boardlet_bridge.core import enrollment
from boardlet_bridge.core.codec import MalformedError
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.enrollment import ClaimKeys, Request, Wanted
from boardlet_bridge.core.enrollment_policy import Policy, PolicyInvalid
from boardlet_bridge.kube.budget import Budget
from boardlet_bridge.kube.client import ApiError, Conflict, NotFound, Rejected
from boardlet_bridge.kube.complaint import Complaint

ENROLLMENTS: Final = "enrollments"
WAITING: Final = 64  # requests that wait for their turn; what finds them full is dropped, and asked again by its board
PER_S: Final = 5.0  # requests a second in the long run: each is one to five calls of the API server
BURST: Final = 20
PAGE: Final = 500
MAX_OBJECTS: Final = 2000  # Enrollments in all, done ones too: they are deleted by a person (docs/enrolment.md)
LIST_S: Final = 2.0
SETTLE_S: Final = 0.5
AGAIN_S: Final = 5.0
CONTESTED: Final = (
    "Enrollment {} says that it is the same hardware: approve the one whose fingerprint the board itself shows (its "
    "console, or who flashed it), and deny the other"
)

log = structlog.get_logger("enrolment")


class EnrollmentClient(Protocol):
    """What this needs of the API server."""

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]: ...
    async def create(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]: ...
    async def apply_status(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]: ...
    async def list_page(
        self, plural: str, limit: int, token: str = "", namespace: str | None = None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class EnrollmentSettings:
    """Where, with which claim, how many, how often; as in Settings."""

    namespace: str
    claim_number: int
    max_open: int
    ask_s: int
    policy_file: Path | None


class Enrollments:
    """One a bridge.

    `client` gives the API server's, once it is open; `spoken` the highest key number that a board of an id has spoken
    under, 0 for none; `keeps` whether it is this replica that enrols boards, of all that hear them ask; `rival` whether
    a Board but that of this name, in whatever namespace, has the id: its key is not for who may edit this one.
    """

    def __init__(
        self,
        settings: EnrollmentSettings,
        ring: KeyRing,
        client: Callable[[], EnrollmentClient],
        publish: Callable[[str, bytes], None],
        spoken: Callable[[str], int],
        observe: Callable[[str], None],
        keeps: Callable[[], bool | None] = lambda: True,
        rival: Callable[[str, str], bool] = lambda board_id, name: False,
    ) -> None:
        self._keeps, self._rival = keeps, rival
        self._settings, self._ring, self._opened = settings, ring, client
        self._publish, self._spoken, self._observe = publish, spoken, observe
        self.keys = ClaimKeys.of(ring, settings.claim_number)
        self._client: EnrollmentClient
        self._waiting: dict[str, Request] = {}
        self._arrived = asyncio.Event()
        self._listed: list[dict[str, Any]] = []
        self._listed_at = float("-inf")
        self._granted: dict[str, tuple[str, str, int]] = {}  # by Enrollment: the Board's name and id, its key number
        self._complaint = Complaint("enrolment", "cannot enrol boards, will try again", "boards are enrolled again")
        self._settling = Complaint(
            "enrolment", "cannot see who is enrolled, will try again", "enrolments are seen again"
        )
        self._policy = Complaint("enrolment", "the policy approves nothing", "the policy is read again")

    @property
    def why(self) -> str:
        """Why no board can be enrolled now, "" while they can."""
        return self._complaint.why or self._settling.why or self._policy.why

    def request(self, fingerprint: str, payload: bytes) -> None:
        """A request has come; cheap, and bounded, whoever sends whatever."""
        if not self._keeps():
            return
        if len(self._waiting) >= WAITING and fingerprint not in self._waiting:
            self._observe("flood")
            return
        try:
            request = enrollment.read_request(self.keys, fingerprint, payload)
        except MalformedError as error:
            self._observe("malformed")
            log.debug("a request to be enrolled cannot be read", why=str(error))
            return
        if request is None:
            self._observe("wrong_seal")
            return
        self._waiting[fingerprint] = request  # the newest one: an older one's nonce is nobody's any more
        self._arrived.set()

    async def run(self) -> None:
        """Answer requests, until cancelled; the client is open by now."""
        self._client = self._opened()
        await asyncio.gather(self._answer(), self._settle())

    async def _answer(self) -> None:
        budget, loop = Budget(PER_S, BURST), asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if not self._waiting:
                self._arrived.clear()
                continue
            if wait := budget.wait_s(loop.time()):
                await asyncio.sleep(wait)
                continue
            budget.spend()
            request = self._waiting.pop(next(iter(self._waiting)))
            try:
                await self._decide(request)
            except Conflict:
                self._observe("conflict")  # somebody has changed it meanwhile: the board asks again
            except ApiError as error:
                self._observe("unavailable")
                self._complaint.failed(str(error), enrollment=request.name)
            except Exception:  # a bug of ours, said loudly: one stranger's words must not stop the bridge
                log.exception("a request failed: report this", enrollment=request.name)
                self._observe("failed")
            else:
                self._complaint.worked()

    async def _decide(self, request: Request) -> None:
        obj = await self._object(request)
        if obj is None:
            self._say(request, GrantCode.TOO_MANY, enrollment.SLOW_S)
        elif obj["spec"]["request"]["publicKey"] != request.public.hex():
            self._observe("malformed")
        elif enrollment.reason_of(obj) == "Enrolled":
            self._say(request, GrantCode.BURNT, enrollment.SLOW_S)
        elif enrollment.denied(obj):
            await self._show(obj, "Denied", enrollment.denial(obj))
            self._say(request, GrantCode.DENIED, enrollment.SLOW_S)
        else:
            wanted = enrollment.of_person(obj) or await self._by_policy(obj)
            if wanted is None:
                await self._show_pending(obj)
            elif await self._grant(obj, request, wanted):
                return
            self._say(request, GrantCode.PENDING, self._settings.ask_s)

    def _say(self, request: Request, code: GrantCode, wait_s: int) -> None:
        self._observe(code.name.lower())
        answer = enrollment.answer(self.keys, request, code, wait_s)
        self._publish(claim.topic(request.public, enrollment.ANSWER), answer)

    async def _object(self, request: Request) -> dict[str, Any] | None:
        # The Enrollment as it is now; None where there may be no more of them.
        namespace = self._settings.namespace
        try:
            return await self._client.get(ENROLLMENTS, namespace, request.name)
        except NotFound:
            pass
        others = await self._others()
        if len(others) >= MAX_OBJECTS or sum(map(enrollment.is_open, others)) >= self._settings.max_open:
            return None
        obj = await self._client.create(ENROLLMENTS, enrollment.new_object(namespace, request))
        others.append(obj)
        log.info("a board asks to be enrolled", enrollment=request.name)
        return obj

    async def _others(self) -> list[dict[str, Any]]:
        # All of them, not older than a moment. Only this bridge makes them, so that there are never more than listed.
        now = asyncio.get_running_loop().time()
        if now >= self._listed_at + LIST_S:
            self._listed, self._listed_at = await self._list(), now
        return self._listed

    async def _list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = await self._client.list_page(ENROLLMENTS, PAGE, token, self._settings.namespace)
            found += page["items"]
            token = page["metadata"].get("continue", "")
            if not token or len(found) >= MAX_OBJECTS:
                return found

    async def _by_policy(self, obj: Mapping[str, Any]) -> Wanted | None:
        path = self._settings.policy_file
        if path is None:
            return None
        try:
            policy = Policy.of(yaml.safe_load(await asyncio.to_thread(path.read_text)))
        except (OSError, ValueError, yaml.YAMLError, PolicyInvalid) as error:
            self._policy.failed(f"{path}: {' '.join(str(error).split())}")
            return None
        self._policy.worked()
        return policy.approves(obj, await self._others(), datetime.now(UTC))

    async def _show_pending(self, obj: Mapping[str, Any]) -> None:
        name = obj["metadata"]["name"]
        if rivals := enrollment.contested(obj, await self._others()):
            await self._show(obj, "Contested", CONTESTED.format(rivals[0]["metadata"]["name"]))
            # They too, though they may never ask again: who came first must not look like the only one.
            for rival in rivals:
                if enrollment.reason_of(rival) == "Pending":
                    with contextlib.suppress(Conflict):
                        await self._show(rival, "Contested", CONTESTED.format(name))
            return
        await self._show(
            obj,
            "Pending",
            f"compare the fingerprint with the board's, then: boardlet approve {name} --board BOARD --model MODEL",
        )

    async def _grant(self, obj: Mapping[str, Any], request: Request, wanted: Wanted) -> bool:
        # Whether an answer has been sent that gives the board its identity, or says why it gets none any more.
        name = obj["metadata"]["name"]
        board = await self._board(obj, request, wanted)
        if board is None:
            return False
        board_id = board["spec"]["boardID"]
        key = enrollment.key_for(board, wanted.board_id, self._spoken(board_id), self._ring.lowest)
        if key.spoken and (obj.get("status") or {}).get("boardID") == board_id:
            await self._enrolled(name, wanted.board)
            self._say(request, GrantCode.BURNT, enrollment.SLOW_S)
            return True
        if not key.number:
            await self._show(obj, "BoardExists", key.why)
            return False
        firsts = {root.first for root in self._ring.roots}
        if other := enrollment.given(obj, board, key.number, await self._list(), firsts):
            message = (
                f"the board of Enrollment {other} was sent key {key.number} of Board {wanted.board} and may hold it"
            )
            message += f": name another Board, or {enrollment.next_key(wanted.board, key.number)}"
            await self._show(obj, "BoardExists", message)
            return False
        held = board["metadata"]["name"], board_id, key.number
        identity = held[1], key.number, self._ring.board_key(held[1], key.number)
        try:
            answer = enrollment.grant(self.keys, request, secrets.token_bytes(32), identity)
        except MalformedError:
            self._observe("malformed")
            return True
        message = f"Board {wanted.board} is the board's; it has been sent its identity, and has not used it yet"
        # First the record, which fails where somebody has changed the object since it was read.
        await self._show(obj, "Granted", message, board=held, by=wanted.by)
        self._granted[name] = held
        self._publish(claim.topic(request.public, enrollment.ANSWER), answer)
        self._observe("granted")
        log.info("gave a board its identity", enrollment=name, board=wanted.board, by=wanted.by)
        return True

    async def _board(self, obj: Mapping[str, Any], request: Request, wanted: Wanted) -> dict[str, Any] | None:
        namespace = self._settings.namespace
        try:
            board = await self._client.get("boards", namespace, wanted.board)
        except NotFound:
            pass
        else:
            return None if await self._taken(obj, board["spec"]["boardID"], wanted.board) else board
        try:
            await self._client.get("boardmodels", namespace, wanted.model)
        except NotFound:
            message = f"there is no BoardModel {wanted.model} in namespace {namespace}: create it; the board asks again"
            await self._show(obj, "ModelNotFound", message)
            return None
        board_id = wanted.board_id or self._ring.enrolled_id(request.public)
        if await self._taken(obj, board_id, wanted.board):
            return None
        body = enrollment.new_board_object(namespace, wanted, board_id, self._ring.first, obj["metadata"]["name"])
        try:
            return await self._client.create("boards", body)
        except Rejected as error:
            await self._show(obj, "CreateFailed", f"Board {wanted.board} cannot be created: {error}"[:1000])
            return None

    async def _taken(self, obj: Mapping[str, Any], board_id: str, board: str) -> bool:
        if not self._rival(board_id, board):
            return False
        message = f"another Board than {board} has the id {board_id}, and its key is that one's: say another boardID"
        await self._show(obj, "BoardExists", message)
        return True

    async def _show(
        self,
        obj: Mapping[str, Any],
        reason: enrollment.Reason,
        message: str,
        board: tuple[str, str, int] | None = None,
        by: str = "",
    ) -> None:
        body = enrollment.status(obj, reason, message, _now(), board=board, by=by)
        if body is not None:
            await self._client.apply_status(ENROLLMENTS, body)
            self._listed_at = float("-inf")

    async def _enrolled(self, name: str, board: str) -> None:
        try:
            obj = await self._client.get(ENROLLMENTS, self._settings.namespace, name)
        except NotFound:
            return  # somebody has deleted it: then nothing is to be said of it
        message = f"Board {board} has spoken under its own identity; this claim is used up"
        await self._show(obj, "Enrolled", message)
        log.info("a board is enrolled", enrollment=name, board=board)

    async def _settle(self) -> None:
        # The claim is used up when the board has spoken: until then its answer may have been lost.
        listed, look_at = False, asyncio.get_running_loop().time()
        while True:
            if not self._keeps():
                listed = False
                self._granted.clear()
                self._waiting.clear()
                await asyncio.sleep(SETTLE_S)
                continue
            try:
                if not listed:
                    await self._recall()
                    listed = True
                slow = asyncio.get_running_loop().time() >= look_at
                look_at += AGAIN_S if slow else 0
                for name, (board, board_id, number) in list(self._granted.items()):
                    if self._spoken(board_id) >= number:
                        await self._enrolled(name, board)
                        del self._granted[name]
                    elif slow:
                        await self._look(name, board)
            except ApiError as error:
                self._settling.failed(str(error))
                await asyncio.sleep(AGAIN_S)
            else:
                self._settling.worked()
            await asyncio.sleep(SETTLE_S)

    async def _look(self, name: str, board: str) -> None:
        # What another replica has heard, or a person has decided meanwhile.
        namespace = self._settings.namespace
        try:
            obj = await self._client.get(ENROLLMENTS, namespace, name)
            there = await self._client.get("boards", namespace, board)
        except NotFound:
            del self._granted[name]
            return
        if enrollment.key_for(there, "", 0).spoken:
            await self._enrolled(name, board)
        elif enrollment.denied(obj):
            await self._show(obj, "Denied", enrollment.denial(obj))  # it may have got its identity, and ask no more
        elif enrollment.reason_of(obj) == "Granted":
            return
        del self._granted[name]

    async def _recall(self) -> None:
        # What an earlier bridge granted.
        for obj in await self._list():
            said = obj.get("status") or {}
            if enrollment.reason_of(obj) == "Granted":
                held = said["boardName"], said["boardID"], said["keyNumber"]
                self._granted.setdefault(obj["metadata"]["name"], held)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
