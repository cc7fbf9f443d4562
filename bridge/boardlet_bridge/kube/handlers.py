"""Watches BoardModels with kopf, in a thread and loop of its own; the only module that imports kopf.

kopf cancels whatever shares its loop when it ends, so it gets one of its own (docs/design.md). Each event is appended
to one queue that the main loop drains in a batch: many events are one wake-up. Nothing is written from here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import kopf

from boardlet_bridge.core.store import Change
from boardlet_bridge.kube.complaint import Complaint
from boardlet_bridge.kube.connection import Connection

API: Final = ("boardlet.dev", "v1alpha1")
BOARDS: Final = "boards"
PAGE: Final = 500
WATCH_S: Final = 600  # whole seconds: it goes into the query as it is; a watch is made anew in this time at the latest
CONNECT_S: Final = 60.0  # TCP and TLS together; by a thin link with loss that takes its time
REQUEST_S: Final = 60.0
TOKEN_S: Final = 600  # a token from a file is read again after this time; the kubelet rotates it before it expires
STOP_S: Final = 10.0
AGAIN_S: Final = 2.0
# kopf waits so long between two tries; a new watch begins after the last one. Short, as edits wait for it.
BACK_OFF_S: Final = (0.1, 0.2, 0.5, 1, 1, 2, 2, 3, 3, 5, 5, 5)


class WatchSink(Protocol):
    """Who is told, on the main loop."""

    def on_board(self, change: Change, obj: Mapping[str, Any]) -> None: ...
    def on_model(self, change: Change, obj: Mapping[str, Any]) -> None: ...
    def on_rewound(self) -> None: ...


class Watch:
    """A kopf operator with one `on.event`."""

    def __init__(self, connection: Connection, namespaces: Sequence[str], sink: WatchSink) -> None:
        self._connection = connection
        self._namespaces = namespaces
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._again = threading.Event()
        self._events: deque[tuple[Change, dict[str, Any]]] = deque()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin to watch; the objects that are there are told as added."""
        logging.getLogger("kopf").setLevel(logging.WARNING)
        for name in ("running", "orchestration"):  # how an operator ends is said by the one that begins anew
            logging.getLogger(f"kopf._core.reactor.{name}").setLevel(logging.CRITICAL)
        logging.getLogger("kopf._cogs.clients.watching").setLevel(logging.CRITICAL)  # resync says it once, not per try
        self._thread.start()

    def restart(self) -> None:
        """Begin anew with a list, because what is being watched is not what there is."""
        self._again.set()

    async def stop(self) -> None:
        """End the watch; nothing is told any more."""
        self._stop.set()
        self._again.set()
        await self._loop.run_in_executor(None, self._thread.join, STOP_S)

    def _run(self) -> None:
        complaint = Complaint("watch", "the watch ended and begins anew", "")
        # kopf gives up after a number of failures in a row; an API server may be away for a month.
        while not self._stop.is_set():
            self._again.clear()
            if self._stop.is_set():
                return  # it was set between the two lines above
            try:
                asyncio.run(self._operator())
            except Exception as error:  # whatever ended it: the objects are listed anew by the next one
                complaint.failed(str(error) or repr(error))
            self._stop.wait(random.uniform(AGAIN_S / 2, AGAIN_S))

    async def _operator(self) -> None:
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=_settings(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=list(self._namespaces),
                stop_flag=self._again,
            )
        finally:
            # kopf waits for the flag in a thread of the loop's, which asyncio.run waits for: it would never return when
            # kopf ends by itself, as when a kind is removed.
            self._again.set()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: object) -> kopf.ConnectionInfo:
            return _login(self._connection)

        @kopf.on.event(*API, "boardmodels", registry=registry)
        async def handle(event: Mapping[str, Any], **_: object) -> None:
            self._put(event)

        return registry

    def _put(self, event: Mapping[str, Any]) -> None:
        first = not self._events
        self._events.append((event["type"] or "ADDED", _plain(event["object"])))
        if first:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        try:
            while self._events:
                change, obj = self._events.popleft()
                if self._stop.is_set():
                    return
                self._sink.on_model(change, obj)
        finally:
            if self._events:  # one object failed in us, loudly: the others must not wait for ever behind it
                self._loop.call_soon(self._drain)


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    obj = dict(body)
    obj["metadata"] = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return obj


def _login(connection: Connection) -> kopf.ConnectionInfo:
    rotated = datetime.now(UTC) + timedelta(seconds=TOKEN_S) if connection.token_file else None
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_data=connection.authority(),
        insecure=connection.insecure,
        certificate_data=connection.certificate,
        private_key_data=connection.key,
        token=connection.bearer(),
        default_namespace=connection.namespace,
        expiration=rotated,
    )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = WATCH_S
    settings.watching.connect_timeout = CONNECT_S
    settings.watching.chunk_size = PAGE
    settings.networking.request_timeout = REQUEST_S
    settings.networking.connect_timeout = CONNECT_S
    settings.networking.error_backoffs = BACK_OFF_S
    return settings
