"""Keeps the logins of a broker elsewhere in step with the Boards, by mosquitto's dynamic-security plugin.

As with the broker's files what is wanted is the whole set. It is compared with what the broker has at every connection
and each ten minutes, so that a bridge or a broker that died in the middle of a change leaves nothing behind; in between
only differences are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable
from typing import Final

import structlog

from boardlet_bridge.mqtt.dynamic_security import ControlChannel, ControlRefused, State, batches, changes
from boardlet_bridge.mqtt.session import MqttSettings
from boardlet_bridge.mqtt.transport import ConnectionEnded
from boardlet_bridge.runtime.login import Logins

COALESCE_S: Final = 0.05
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
LOOK_AGAIN_S: Final = 5.0  # whose turn it is
READ_AGAIN_S: Final = 600.0  # what others have changed at the broker meanwhile is put right

log = structlog.get_logger("credentials")


class DynamicLogins:
    """Brings the logins to the broker.

    `keeps` says whether they are this replica's to keep: True, False, None for that it is not sure now.
    """

    def __init__(
        self,
        settings: MqttSettings,
        logins: Logins,
        warn: Callable[[str, str], None],
        keeps: Callable[[], bool | None] = lambda: True,
    ) -> None:
        self._settings = settings
        self._logins = logins
        self._warn = warn
        self._keeps = keeps
        self._changed = logins.changed
        self._foreign: frozenset[str] = frozenset()
        self._client_id = f"boardlet-bridge-logins-{secrets.token_hex(4)}"
        self.why = "has not asked the broker yet"

    def again(self) -> None:
        """Look at the logins now: they may be ours to keep, which somebody else did."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the logins, until cancelled; to be started when all objects have been listed."""
        pause = FIRST_PAUSE_S
        while True:
            await self._our_turn()
            channel = None
            try:
                channel = ControlChannel(self._settings, self._client_id)
                await channel.open()
                await self._keep(channel)
            except (ConnectionEnded, ControlRefused) as error:
                if not self.why:
                    pause = FIRST_PAUSE_S
                self._said(str(error))
            finally:
                if channel is not None:
                    channel.close()
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _our_turn(self) -> None:
        while not (keeps := self._keeps()):
            if keeps is False:
                self.why = ""  # it is another's
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_AGAIN_S)

    async def _keep(self, channel: ControlChannel) -> None:
        while self._keeps():
            state = await channel.state()
            self._warn_of(state)
            fresh_until = asyncio.get_running_loop().time() + READ_AGAIN_S
            while (left := fresh_until - asyncio.get_running_loop().time()) > 0:
                self._changed.clear()
                if not self._keeps():
                    return
                await self._bring(channel, state)
                self._said("")
                await self._wait(channel, left)
                await asyncio.sleep(COALESCE_S)

    async def _bring(self, channel: ControlChannel, state: State) -> None:
        logins = self._logins.passwords()
        self._say_foreign(frozenset(state.foreign(logins)))
        for batch in batches(changes(state, logins, str(self._settings.user))):
            await channel.run(batch, state)
            log.info("changed the broker's logins", commands=len(batch), boards=len(logins))

    async def _wait(self, channel: ControlChannel, most_s: float) -> None:
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            either: set[asyncio.Future[object]] = {changed, channel.ended}  # type: ignore[arg-type]
            await asyncio.wait(either, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        if channel.ended.done():
            raise ConnectionEnded(channel.ended.result())

    def _said(self, why: str) -> None:
        if why and why != self.why:
            log.warning("cannot keep the broker's logins, will try again", why=why)
        elif self.why and not why:
            log.info("the broker's logins are kept")
        self.why = why

    def _warn_of(self, state: State) -> None:
        if state.open:
            kinds = " and ".join(state.open)
            self._warn(
                "OpenByDefault",
                f"the broker allows {kinds} to every client whom no role forbids it, so that a board may use the "
                f"topics of others: mosquitto_ctrl dynsec setDefaultACLAccess {state.open[0]} deny",
            )

    def _say_foreign(self, foreign: frozenset[str]) -> None:
        for user in sorted(foreign - self._foreign):
            log.warning(
                "the broker has a client of this name that is not the bridge's, and it is left: where it was meant for "
                "the board, remove it (mosquitto_ctrl dynsec deleteClient)",
                user=user,
            )
        self._foreign = foreign
