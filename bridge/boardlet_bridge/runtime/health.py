"""/livez, /readyz and /metrics. Live: the loop turns. Ready: the objects are listed and the broker is up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from boardlet_bridge.runtime.metrics import Metrics


class Health:
    """A small HTTP server; `parts` says of each part why it is not ready, "" if it is."""

    def __init__(self, host: str, port: int, metrics: Metrics, parts: Callable[[], Mapping[str, str]]) -> None:
        self._host, self._port, self._metrics, self._parts = host, port, metrics, parts
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serve; raises OSError where the port is taken."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metricz)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Serve no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        parts = dict(self._parts())
        ready = not any(parts.values())
        return web.json_response({"ready": ready, "parts": parts}, status=200 if ready else 503)

    async def _metricz(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._metrics.text(), content_type="text/plain", charset="utf-8")
