"""A TLS-terminating proxy before a real API server, which answers some requests wrongly, late, half or not at all.

What it lets through is the real server's own answer. It shows the control plane's own certificate, and passes the
client's token on, so that the bridge notices nothing but the faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web
from boardlet_bridge.kube.client import severed
from controlplane import ControlPlane
from fakes.loop_thread import LoopThread
from provision.process import free_port

Where = Callable[[web.BaseRequest], bool]
_HOP: Final = {"connection", "content-length", "transfer-encoding", "content-encoding", "host", "accept-encoding"}
_MAX_BODY: Final = 64 * 1024 * 1024


def watch(request: web.BaseRequest) -> bool:
    """A request for a watch."""
    return "watch" in request.query


def reading(request: web.BaseRequest) -> bool:
    """A GET or a list."""
    return request.method == "GET" and not watch(request)


def next_page(request: web.BaseRequest) -> bool:
    """A request for the rest of a list."""
    return reading(request) and "continue" in request.query


def writing(request: web.BaseRequest) -> bool:
    """A write."""
    return request.method != "GET"


def anything(_: web.BaseRequest) -> bool:
    """Every request."""
    return True


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do with which requests, how often (0 to 1).

    kind: a status code as text; "reset" before or "forget" after the server has done it; "cut" the answer in its
    middle; "slow" by a second; "gone event" in a watch; "cut watch" after its next event's half.
    """

    kind: str
    where: Where = anything
    chance: float = 1.0


class ApiProxy(LoopThread):
    """Listens on loopback while the with-block lasts; `faults` may be set at any time, and holds for new requests."""

    def __init__(self, plane: ControlPlane, seed: int, page: int | None = None) -> None:
        super().__init__("api proxy")
        self.port = free_port()
        self.faults: Sequence[Fault] = ()
        self.counts: Counter[str] = Counter()
        self._upstream = plane.url
        self._pki = plane.folder / "pki"
        self._page = page
        self._dice = random.Random(seed)
        self._streams: set[_Stream] = set()

    def kubeconfig(self, of: Path, path: Path) -> Path:
        """Write the kubeconfig `of` with this proxy for its server to `path`."""
        config = yaml.safe_load(of.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        path.write_text(yaml.safe_dump(config))
        return path

    def blind(self) -> int:
        """Make every watch that is open silent for good, without closing it; how many there were."""
        return self._call(lambda: sum(stream.silence() for stream in self._streams))

    def cut(self) -> int:
        """End every watch that is open, without a good-bye; how many there were."""
        return self._call(lambda: sum(stream.abort() for stream in list(self._streams)))

    async def _serve(self) -> None:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(self._pki / "apiserver.crt", self._pki / "apiserver.key")
        client = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        connector = aiohttp.TCPConnector(ssl=client, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        ) as self._session:
            app = web.Application(client_max_size=_MAX_BODY)
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=server).start()
            self._ready.set()
            await self._stop.wait()
            for stream in list(self._streams):
                stream.abort()
            await runner.cleanup()

    def _chosen(self, request: web.Request) -> str:
        for fault in self.faults:
            if fault.where(request) and self._dice.random() < fault.chance:
                self.counts[fault.kind] += 1
                return fault.kind
        return ""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        kind = self._chosen(request)
        if kind.isdigit():
            return _answer(int(kind))
        if kind == "reset":
            return _aborted(request)
        if kind == "slow":
            await asyncio.sleep(1)
        try:
            return await self._forward(request, kind)
        except (aiohttp.ClientError, OSError):
            return _aborted(request)

    async def _forward(self, request: web.Request, kind: str) -> web.StreamResponse:
        url = request.rel_url
        if self._page and "limit" in url.query:
            url = url.update_query(limit=str(self._page))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        headers["Accept-Encoding"] = "identity"  # a watch is passed on by its lines
        async with self._session.request(
            request.method, self._upstream + str(url), data=await request.read() or None, headers=headers
        ) as answer:
            return await self._passed(request, answer, kind)

    async def _passed(self, request: web.Request, answer: aiohttp.ClientResponse, kind: str) -> web.StreamResponse:
        with severed(answer):
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if watch(request) and answer.status == 200:
                return await self._stream(request, answer, passed, kind)
            body = await answer.read()
            if kind == "forget":
                return _aborted(request)
            if kind == "cut":
                half = web.StreamResponse(status=answer.status, headers={**passed, "Content-Length": str(len(body))})
                await half.prepare(request)
                await half.write(body[: len(body) // 2])
                return _aborted(request)
            return web.Response(status=answer.status, headers=passed, body=body)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, headers: dict[str, str], kind: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        stream = _Stream(request)
        await response.prepare(request)
        self._streams.add(stream)
        try:
            if kind == "gone event":
                await response.write(_GONE_EVENT)
                return response
            async for line in answer.content:
                if stream.silent:
                    continue
                if kind == "cut watch":
                    await response.write(line[: len(line) // 2])
                    return _aborted(request)
                await response.write(line)
            while stream.silent and request.transport is not None:
                await asyncio.sleep(0.1)
        except ConnectionResetError:
            pass  # the client went first
        finally:
            self._streams.discard(stream)
        return response


class _Stream:
    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.silent = False

    def silence(self) -> bool:
        self.silent = True
        return True

    def abort(self) -> bool:
        _aborted(self._request)
        return True


_GONE_EVENT: Final = (
    b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"too old resource version: 1 (2)","reason":"Expired","code":410}}\n'
)
_REASONS: Final = {401: "Unauthorized", 403: "Forbidden", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}


def _answer(status: int) -> web.Response:
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"injected {status}",
        "reason": _REASONS.get(status, "ServiceUnavailable"),
        "code": status,
    }
    return web.json_response(body, status=status, headers={"Retry-After": "1"} if status == 429 else None)


def _aborted(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        with contextlib.suppress(OSError):
            request.transport.abort()
    return web.Response(status=500)
