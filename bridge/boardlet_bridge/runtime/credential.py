"""Keeps the broker's logins in step with the Boards: who has an object is let in, nobody else (docs/operations.md).

What is wanted is the whole set, so that changes are coalesced and a crash leaves nothing behind: the next bridge writes
the same set, and the broker is told at every start, in case the last one died between file and signal. Of many replicas
one keeps the files, for the boards of all: the one that holds bucket 00.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from boardlet_bridge.mqtt.credential import UsersFile, hang_up, write_acl, write_keys
from boardlet_bridge.runtime.login import Logins

COALESCE_S: Final = 0.05
# At every signal mosquitto hashes the password of each connected client anew: 10,000 of them hold it up for 0.3 s. So
# much time, and a little for its work, passes between two signals.
LEAST_GAP_S: Final = 0.2
GAP_A_LOGIN_S: Final = 5e-5
AGAIN_S: Final = 5.0  # a file that cannot be written, a broker that cannot be told
NOT_YET: Final = "has not looked at the broker's files yet"

log = structlog.get_logger("credentials")


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """Where the broker's files are; each may be None, then that file is somebody else's."""

    users_file: Path | None
    acl_file: Path | None
    pid_file: Path | None
    bridge_user: str
    password_file: Path | None
    psk_file: Path | None = None

    @property
    def on(self) -> bool:
        return any(file is not None for file in (self.users_file, self.acl_file, self.psk_file))


class Credentials:
    """Brings the logins into the files, and has the broker read them.

    `keeps` says whether the files are this replica's to keep: True, False, None for that it is not sure now.
    """

    def __init__(
        self,
        settings: CredentialSettings,
        logins: Logins,
        keeps: Callable[[], bool | None] = lambda: True,
    ) -> None:
        self._settings = settings
        self._logins = logins
        self._keeps = keeps
        self._users = UsersFile(settings.users_file) if settings.users_file else None
        self._changed = logins.changed
        self._told = False  # since this process started, or since the last change
        self._foreign: frozenset[str] = frozenset()
        self.why = NOT_YET

    def again(self) -> None:
        """Look at the files now: they may be ours to keep, which somebody else did."""
        self._told = False
        self._changed.set()

    async def run(self) -> None:
        """Keep the files, until cancelled; to be started when all objects have been listed."""
        self._changed.set()
        while True:
            if self._told:
                await self._changed.wait()
            else:
                try:
                    await asyncio.wait_for(self._changed.wait(), AGAIN_S)
                except TimeoutError:
                    self._changed.set()
            await asyncio.sleep(COALESCE_S)
            self._changed.clear()
            if not (keeps := self._keeps()):
                if keeps is False:  # telling is for the one that keeps them, and so is what hinders it
                    self._told, self.why = True, ""
                else:
                    self._told = False
                continue
            await self._keep()
            await asyncio.sleep(LEAST_GAP_S + GAP_A_LOGIN_S * len(self._logins))

    async def _keep(self) -> None:
        try:
            self._told = await asyncio.to_thread(self._write, self._told)
        except OSError as error:
            self._told = False
            if str(error) != self.why:
                log.warning("cannot keep the broker's credentials, will try again", why=str(error))
            self.why = str(error)
            return
        if self.why not in ("", NOT_YET):
            log.info("the broker's credentials are kept again")
        self.why = ""
        self._say_foreign()

    def _write(self, told: bool) -> bool:
        # In a thread: a fleet's first file takes seconds.
        settings, changed = self._settings, False
        boards, logins = len(self._logins), self._logins.passwords()
        if settings.psk_file:
            changed |= write_keys(settings.psk_file, logins)
        if self._users is not None:
            if settings.password_file:
                logins[settings.bridge_user] = settings.password_file.read_text().strip()
            changed |= self._users.write(logins)
        if settings.acl_file:
            changed |= write_acl(settings.acl_file, settings.bridge_user, self._logins.claimable)
        if changed:
            log.info("wrote the broker's credentials", boards=boards)
        if told and not changed:
            return True
        return settings.pid_file is None or hang_up(settings.pid_file)

    def _say_foreign(self) -> None:
        foreign = frozenset(self._users.foreign if self._users else ())
        for user in sorted(foreign - self._foreign):
            log.warning(
                "the users file has a line of this name that is not the bridge's, and it is left: where it was meant "
                "for the board, remove it",
                user=user,
            )
        self._foreign = foreign
