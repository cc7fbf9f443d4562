"""One replica among others: keeps its Lease, sees who else lives, and holds the buckets that are its own.

A round is: look who lives; where that is another view than the published one, give up what is lost by it, wait for
writes under way, publish it with the lease; look again, and hold what no other's view gives to its publisher. As each
publishes before it looks, of two that take the same bucket at least one sees the other (Lamport's bakery); as all come
to the same view, somebody holds it in the end. A watch tells when to look, time tells when to renew.

Who does not reach the broker says so in its lease, and is no part of a view for as long as another does: after half of
`absent_s` it says so, after the other half it and all that have seen that leave it out. Of an outage of the broker
itself all say so before anybody is left out, so that it moves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from boardlet_bridge.core.store import Leases
from boardlet_bridge.kube.client import ApiError, Conflict, Forbidden, NotFound
from boardlet_bridge.kube.complaint import Complaint
from boardlet_bridge.kube.lease import SITE, Lease, body, micro, prefix, read
from boardlet_bridge.runtime.fence import SURE, Fence, boottime
from boardlet_bridge.runtime.roll import Roll
from boardlet_bridge.runtime.shard import BUCKETS, View, may_hold, share

RENEW: Final = 1 / 3  # of the duration between two renewals
AGAIN_S: Final = 1.0  # after a round that failed
FORBIDDEN_S: Final = 30.0  # rights may come, or come back; until then every try is one request
RIGHTS: Final = "coordination.k8s.io/leases in namespace %s: get, list, watch, create, update, delete"

log = structlog.get_logger("lease")


class Hands(Protocol):
    """Who serves the buckets."""

    def hold(self, buckets: frozenset[str]) -> None:
        """Serve these from now on."""

    def release(self, buckets: frozenset[str]) -> None:
        """Say nothing more for these from now on."""

    async def landed(self) -> None:
        """Return when what was under way is done."""

    def reaches(self) -> bool:
        """Whether the broker is connected."""

    def reopened(self) -> None:
        """The fence's gate may have changed: what waited for it may go on, or not."""


class Membership:
    """Joins the replicas of `site` as `name`; `holder` is this process's own name at the broker."""

    def __init__(
        self,
        client: Leases,
        hands: Hands,
        fence: Fence,
        *,
        namespace: str,
        site: str,
        name: str,
        holder: str,
        duration_s: int,
        absent_s: float = 0.0,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._client, self._hands, self._fence, self._clock = client, hands, fence, clock
        self._namespace, self._site, self._duration_s = namespace, site, duration_s
        self._mine = Lease(name, holder, "", duration_s, frozenset(), micro(datetime.now(UTC)))
        self._roll = Roll(duration_s)
        self._absent_s = absent_s  # 0: whoever lives serves
        self._away_at = float("inf")  # since when the broker has not been reached
        self._started = False
        self._renewed_at = float("-inf")
        self._forbidden_at = float("inf")  # since when
        self._patience_s = duration_s * RENEW  # with one round
        self._wake = asyncio.Event()
        self._complaint = Complaint(
            "lease",
            "cannot renew the lease, will try again: until then nothing new is minted",
            "the lease is renewed again",
        )
        self.held: frozenset[str] = frozenset()
        self.joined = asyncio.Event()
        """Set once it is known what this replica is to serve."""

    @property
    def why(self) -> str:
        """Why the lease cannot be kept, "" while it can."""
        return self._complaint.why if self.joined.is_set() else self._complaint.why or "has no lease yet"

    @property
    def others(self) -> dict[str, Lease]:
        """The other replicas that live, by name."""
        live = self._roll.live(self._clock())
        live.pop(self._mine.replica, None)
        return live

    @property
    def holders(self) -> frozenset[str]:
        """The processes that have, or had, a lease of this site."""
        return frozenset(seen.lease.holder for seen in self._roll.seen.values())

    async def run(self) -> None:
        """Take part until cancelled."""
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                self._wake.clear()
                pause = await self._try()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def leave(self) -> None:
        """Give the lease back, so that the others need not wait; to be called when nothing is served any more."""
        self._fence.close()
        if self._started:
            try:
                async with asyncio.timeout(self._duration_s):
                    await self._look()  # a renewal may have been cut off with its answer
                    if self._mine.version:
                        await self._delete(self._mine)
            except (ApiError, TimeoutError) as error:
                log.warning("could not give the lease back, the others wait until it has run out", why=str(error))

    async def _try(self) -> float:
        # One round; returns how long to wait for the next.
        began = self._clock()
        try:
            async with asyncio.timeout(self._patience_s):
                await self._round()
        except Forbidden as error:
            self._forbidden_at = min(self._forbidden_at, began)
            # An API server that starts may not have read the rights yet by which the lease was had.
            if self.others or (self._started and began < self._forbidden_at + FORBIDDEN_S):
                return self._failed(began, str(error))
            return self._be_alone(str(error))
        except TimeoutError:
            self._forbidden_at = float("inf")
            failed = self._failed(began, f"no answer within {self._patience_s:g} s")
            self._patience_s = min(2 * self._patience_s, self._duration_s * SURE)
            return failed
        except ApiError as error:
            self._forbidden_at = float("inf")
            return self._failed(began, str(error))
        now = self._clock()
        # A slow API server gets time, or no round would ever end; one that is away is soon known to be.
        self._patience_s = max(self._duration_s * RENEW, min(2 * (now - began), self._duration_s * SURE))
        self._forbidden_at = float("inf")
        due = self._renewed_at + self._duration_s * RENEW
        if self._absent_s and self.others:
            due = min(due, now + self._absent_s / 2)
        return max(0.0, min(due, self._roll.next_death(now)) - now)

    def _failed(self, began: float, why: str) -> float:
        self._complaint.failed(why)
        self._fence.failed(min(self._clock(), began + self._patience_s))
        self._hands.reopened()
        return random.uniform(AGAIN_S / 2, AGAIN_S)

    def _be_alone(self, why: str) -> float:
        if not self._fence.alone:
            log.warning(
                "no rights for Leases: this bridge serves every board, as if it were the only one; apply the rights of "
                "this release (bridge/deploy/rbac.yaml, helm upgrade) or name their namespace (lease_namespace)",
                needed=RIGHTS % self._namespace,
                why=why,
            )
        self._fence.alone = True
        self._complaint.why = ""  # it needs no lease now
        self._hold(BUCKETS)
        self._hands.reopened()
        return FORBIDDEN_S

    async def _round(self) -> None:
        await self._look()
        now, others = self._clock(), self.others
        away = self._is_away(now)
        view = self._view(now, others, away)
        due = now >= self._renewed_at + self._duration_s * RENEW
        writes = due or view != self._mine.view or away != self._mine.away or not self._mine.version
        asked_at = now
        if writes:
            await self._publish(view, away)
            await self._look()
        may = may_hold(self._mine.replica, self._mine.view, [(o.replica, o.view) for o in self.others.values()])
        self._release(self.held - may)
        if writes:
            self._renewed_at = asked_at
            self._fence.alone = False
            self._fence.renewed(asked_at)
        self._complaint.worked()
        self._hold(may)
        self._hands.reopened()
        await self._sweep()

    def _is_away(self, now: float) -> bool:
        # Whether to say so.
        self._away_at = float("inf") if self._hands.reaches() or not self._absent_s else min(self._away_at, now)
        return now >= self._away_at + self._absent_s / 2

    def _view(self, now: float, others: Mapping[str, Lease], away: bool) -> View:
        # Who serves: all that live, but those that have not reached the broker for too long while another does.
        live = frozenset({self._mine.replica, *others})
        if not self._absent_s or (away and all(lease.away for lease in others.values())):
            return live
        lost = self._roll.away(now, self._absent_s / 2) & others.keys()
        return live - lost - ({self._mine.replica} if now >= self._away_at + self._absent_s else set())

    async def _look(self) -> None:
        found = await self._client.leases(self._namespace, f"{SITE}={self._site}")
        leases = [lease for lease in (read(obj, self._site) for obj in found) if lease is not None]
        self._roll.look(leases, self._clock())
        there = next((lease for lease in leases if lease.replica == self._mine.replica), None)
        if there is None:
            self._mine = replace(self._mine, version="")
        elif there.holder == self._mine.holder or not self._started or there.acquired < self._mine.acquired:
            # One's own; at a start that of the process before, which this one replaces, and after the restore of an
            # older backup that of any before.
            self._mine = replace(self._mine, version=there.version)
            if there.holder != self._mine.holder:
                self._renewed_at = float("-inf")  # what it says is not ours: it is replaced now
        else:
            self._step_aside(there.holder)

    def _step_aside(self, holder: str) -> None:
        name = f"{self._mine.replica}-{secrets.token_hex(2)}"
        log.warning(
            "another bridge has started under this one's name; this one goes on under another, and they share the "
            "boards: stop one of them, or give each its replica_name",
            name=self._mine.replica,
            holder=holder,
            now=name,
        )
        self._fence.close()
        self._release(self.held)
        self._mine = replace(self._mine, replica=name, version="", view=frozenset())

    async def _publish(self, view: View, away: bool) -> None:
        if view != self._mine.view:
            self._release(self.held - share(self._mine.replica, view))
            await self._hands.landed()
            log.info("replicas", here=self._mine.replica, live=sorted(view))
        wanted = replace(self._mine, view=view, away=away)
        try:
            put = await self._client.put_lease(body(self._namespace, self._site, wanted))
        except NotFound as error:
            if wanted.version:
                raise
            raise Forbidden(str(error)) from error  # there is no such namespace, where nobody has a lease
        written = read(put, self._site)
        assert written is not None, "what was written is ours"
        self._mine, self._started = written, True

    def _release(self, buckets: frozenset[str]) -> None:
        if buckets:
            self.held -= buckets
            self._hands.release(buckets)

    def _hold(self, may: frozenset[str]) -> None:
        gained, self.held = may - self.held, self.held | may
        if gained:
            self._hands.hold(gained)
        self.joined.set()

    async def _sweep(self) -> None:
        with contextlib.suppress(ApiError):  # somebody else's turn, or ours at the next round
            for lease in self._roll.long_dead(self._clock()):
                await self._delete(lease)

    async def _delete(self, lease: Lease) -> None:
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete_lease(self._namespace, prefix(self._site) + lease.replica, lease.version)

    async def _watch(self) -> None:
        while True:
            pause = AGAIN_S
            try:
                async with self._client.watch_leases(self._namespace, f"{SITE}={self._site}") as changes:
                    async for _ in changes:
                        self._wake.set()
            except Forbidden:
                pause = FORBIDDEN_S
            except ApiError:
                pass  # the next round says it
            await asyncio.sleep(random.uniform(pause / 2, pause))
