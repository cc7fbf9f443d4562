"""How long the client waits: longer where answers come late, as by a thin link, and no longer than it must."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from boardlet_bridge.kube import client as client_module
from boardlet_bridge.kube.client import KubeClient, Unavailable
from boardlet_bridge.kube.connection import Connection

BODY = json.dumps({"items": [], "metadata": {}}).encode()
FIRST_S, LONGEST_S = 0.1, 3.2

Answer = Callable[[web.StreamResponse], Awaitable[None]]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of which a test can wait for several."""
    monkeypatch.setattr(client_module, "TIMEOUT_S", FIRST_S)
    monkeypatch.setattr(client_module, "LONGEST_TIMEOUT_S", LONGEST_S)


@asynccontextmanager
async def api(answer: Answer) -> AsyncIterator[KubeClient]:
    """A client of an API server that answers every request so."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await answer(response)
        return response

    runner = web.ServerRunner(web.Server(serve), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with KubeClient(Connection(f"http://127.0.0.1:{port}")) as client:
            yield client
    finally:
        await runner.cleanup()


def test_a_late_answer_is_waited_for_in_the_end() -> None:
    """An API server whose answers take five times as long as a client waits at first is given up, then waited for; once
    it is quick again the client waits no longer than at first."""

    async def run() -> None:
        late_s = 5 * FIRST_S

        async def answer(response: web.StreamResponse) -> None:
            await asyncio.sleep(late_s)
            await response.write(BODY)

        async with api(answer) as client:
            failed = 0
            while True:
                try:
                    await client.list_page("boards", 1)
                    break
                except Unavailable:
                    failed += 1
            assert failed >= 3  # after 0.1, 0.2 and 0.4 s
            await client.list_page("boards", 1)  # and it is not given up again
            late_s, quick = 0.0, 0
            loop = asyncio.get_running_loop()
            while quick < 6:  # each halves the patience
                began = loop.time()
                await client.list_page("boards", 1)
                quick = quick + 1 if loop.time() - began < FIRST_S / 4 else 0
            late_s = 5 * FIRST_S
            with pytest.raises(Unavailable):
                await client.list_page("boards", 1)

    asyncio.run(run())


def test_an_answer_that_trickles_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps coming is not given up, however long it takes in all."""
    patience_s, pause_s = 1.5, 0.35  # a machine may stand still for a second
    monkeypatch.setattr(client_module, "TIMEOUT_S", patience_s)

    async def run() -> None:
        async def answer(response: web.StreamResponse) -> None:
            for at in range(0, len(BODY), 5):
                await response.write(BODY[at : at + 5])
                await asyncio.sleep(pause_s)

        async with api(answer) as client:
            began = asyncio.get_running_loop().time()
            assert await client.list_page("boards", 1) == json.loads(BODY)
            assert asyncio.get_running_loop().time() - began > patience_s

    asyncio.run(run())
