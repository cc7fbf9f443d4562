"""One simulated board through the main job, inside a cluster: what `helm test` runs (docs/install.md).

It makes a BoardModel and a Board, connects to the broker as that board, and goes on only when the board itself and its
object agree: Ready, then an edit; in the end it removes both. Exit codes: 0 all of it held, 1 something did not, which
the last lines name with what to do next.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from boardlet_bridge.core.root_key import RootKeyInvalid, parse
from boardlet_bridge.kube import connection
from boardlet_wire.keys import board_key

from .board import Board
from .link import Counts, Link
from .objects import STEP_S, Objects, TrialFailed, is_synced

CALL_S: Final = 15.0
PAUSE_S: Final = 2.0  # a broker lets a board in a second or two after its object was made
LAMP: Final = 0  # its index
MODEL: Final = {"properties": [{"name": "lamp", "index": LAMP, "type": "Boolean", "access": "ReadWrite"}]}


async def main_job(objects: Objects, link: Link) -> None:
    """From a new Board to a clean end, telling each step; raises TrialFailed."""
    board, began = link.board, time.monotonic()
    number = board.key_number
    spec: dict[str, Any] = {"boardID": board.id, "modelRef": {"name": objects.name}, "properties": {"lamp": False}}
    spec["credential"] = {"keyNumber": number, "revokedKeyNumber": number - 1}
    await objects.create("boardmodels", MODEL)
    await objects.create("boards", spec)
    await link.connect()
    try:
        await objects.until(is_synced(1, lamp=False), "become Ready")
    except TrialFailed as error:
        broker = f"; the broker at {link.host}:{link.port}: {'connected' if link.up else link.why}"
        raise TrialFailed(f"{error}{broker}") from error
    _tell(f"board {board.id} of Board {objects.namespace}/{objects.name} is Ready", began)

    began = time.monotonic()
    generation = await objects.edit({"lamp": True})
    await objects.until(is_synced(generation, lamp=True), f"follow the edit of generation {generation}")
    if not (board.values[LAMP] is True and board.applied and board.applied[3] == generation):
        raise TrialFailed(f"the status tells of generation {generation}, the board runs {board.applied}: this is a bug")
    _tell("an edit reached the board, and the board's word of it the status", began)


def _tell(what: str, began: float) -> None:
    print(f"{what}: {1000 * (time.monotonic() - began):.0f} ms", flush=True)


@asynccontextmanager
async def powered(board: Board, host: str, port: int) -> AsyncIterator[Link]:
    """The board's connection, looked after once a second, off in the end."""
    link = Link(board, port, Counts(), host)
    link.longest_pause_s = PAUSE_S

    async def sweep() -> None:
        while True:
            await asyncio.sleep(1.0)
            link.sweep(asyncio.get_running_loop().time())

    sweeping = asyncio.create_task(sweep())
    try:
        yield link
    finally:
        sweeping.cancel()
        link.cut()


async def is_ready(session: aiohttp.ClientSession, url: str) -> None:
    """Tell that the bridge has the cluster's objects and the broker; raises TrialFailed."""
    async with session.get(url, ssl=False) as answer:
        text = await answer.text()
        if answer.status != 200:
            raise TrialFailed(f"the bridge is not ready: {text[:500]}")
    print("the bridge is ready", flush=True)


async def run(chosen: argparse.Namespace) -> None:
    """All of the trial; raises TrialFailed, and what cannot be reached as OSError or ClientError."""
    timeout = aiohttp.ClientTimeout(total=CALL_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await is_ready(session, chosen.ready)
    if chosen.broker is None:
        print("no more was tried: nobody lets the test's board in at this broker, or it speaks TLS only")
        return
    newest = parse(chosen.root_key.read_text())[0]
    board_id = f"test{os.urandom(4).hex()}"  # another one each time: no board's past is in the way
    board = Board(board_id, board_key(newest.key, board_id, newest.first), {}, newest.first)
    server = connection.find(chosen.kubeconfig)
    connector = aiohttp.TCPConnector(ssl=server.ssl_context())
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        objects = Objects(server, session, chosen.namespace or server.namespace, chosen.name, chosen.step_s)
        await objects.clear()  # a pod that was killed could not
        failures: list[str] = []
        try:
            async with powered(board, chosen.broker, chosen.port) as link:
                await main_job(objects, link)
        except TrialFailed as error:
            failures.append(str(error))
        finally:
            await clean_up(objects, failures)
    if failures:
        raise TrialFailed("; then ".join(failures))


async def clean_up(objects: Objects, failures: list[str]) -> None:
    """Remove both objects; one that does not go is a failure too, and hides none before it."""
    began = time.monotonic()
    try:
        await objects.clear()
    except TrialFailed as error:
        failures.append(str(error))
    else:
        _tell("both objects are gone", began)


def main() -> int:
    """Run the trial; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fleet.trial", description=__doc__)
    parser.add_argument("--ready", required=True, help="URL of the bridge's /readyz")
    parser.add_argument("--broker", help="where boards reach the broker; without it only the bridge is asked")
    parser.add_argument("--port", type=int, default=1883, help="the broker's port")
    parser.add_argument("--root-key", type=Path, help="file with the site's root key")
    parser.add_argument("--namespace", help="where the objects are made; default: the pod's")
    parser.add_argument("--name", default="boardlet-test", help="name of both objects")
    parser.add_argument("--step-s", type=float, default=STEP_S, help="seconds that each step may take")
    parser.add_argument("--kubeconfig", type=Path, help="default: the pod's service account")
    chosen = parser.parse_args()
    if chosen.broker is not None and chosen.root_key is None:
        parser.error("--broker needs --root-key: the board's key follows from it")

    async def until_term() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await run(chosen)

    try:
        asyncio.run(until_term())
    except (TrialFailed, RootKeyInvalid, connection.ConnectionInvalid, aiohttp.ClientError, OSError) as error:
        print(f"FAILED: {error or type(error).__name__}\nnext: kubectl logs of the bridge's pod, docs/status.md")
        return 1
    except asyncio.CancelledError:
        print("FAILED: it was ended from outside, as after too long a time")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
