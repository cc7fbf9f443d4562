"""Who keeps the broker's files where there are several replicas."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from boardlet_bridge.runtime import credential
from boardlet_bridge.runtime.credential import Credentials, CredentialSettings
from boardlet_bridge.runtime.login import Logins
from waiting import until


def test_one_replica_keeps_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not keep them leaves them alone; who is not sure waits; who comes to keep them writes the whole."""
    monkeypatch.setattr(credential, "AGAIN_S", 0.05)
    users = tmp_path / "users"
    keeps: list[bool | None] = [False]
    logins = Logins(lambda board_id, number: f"{board_id}{number}")
    made = Credentials(CredentialSettings(users, None, None, "boardlet-bridge", None), logins, lambda: keeps[0])

    async def run() -> None:
        task = asyncio.create_task(made.run())
        logins.admit("board0001", 1)
        await asyncio.sleep(3 * credential.COALESCE_S)  # time in which it could have written
        assert not users.exists()
        keeps[0] = None
        made.again()
        await asyncio.sleep(3 * credential.COALESCE_S)
        assert not users.exists()
        keeps[0] = True
        await until(users.exists)
        assert "board0001:" in users.read_text()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
