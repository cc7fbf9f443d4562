"""A small client of the API server: list, get, status by server-side apply, finalizers of our kinds; Events; Leases.

Errors are told apart by what the caller does about them: read again (Conflict), forget (NotFound), wait (Throttled,
Unavailable), or tell an operator (Forbidden, Invalid).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from boardlet_bridge.kube.connection import Connection

GROUP: Final = "boardlet.dev/v1alpha1"
MANAGER: Final = "boardlet-bridge"
FINALIZER: Final = "boardlet.dev/mailbox"
TIMEOUT_S: Final = 15.0  # until the connection stands, and then between two pieces of an answer
LONGEST_TIMEOUT_S: Final = 60.0  # by 64 kbit/s with 1 s each way and 20 % loss a connection takes 6 to 40 s
LONGEST_ANSWER_S: Final = 600.0
WATCH_IDLE_S: Final = 90.0  # the API server sends a bookmark every minute
MAX_MESSAGE: Final = 500
WATCH: Final = "watch=true&allowWatchBookmarks=true"
NOBODY: Final = "fieldSelector=metadata.name%3Dboardlet.none"
NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # not as they are
LONGEST_PATIENCE_S: Final = 60.0  # however long a Retry-After asks for


class ApiError(Exception):
    """The API server did not do what was asked; the message is its own."""


class Conflict(ApiError):
    """The object has changed since it was read (409)."""


class NotFound(ApiError):
    """There is no such object (404)."""


class Gone(ApiError):
    """The list's continuation has expired (410)."""


class Throttled(ApiError):
    """The API server asks for patience (429); `retry_after_s` seconds of it."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(ApiError):
    """The API server will not take this request as it is (400, 422)."""


class Unavailable(ApiError):
    """The API server cannot be reached, is not well (5xx), or does not know our rights (401, 403)."""


class Forbidden(Unavailable):
    """Our rights do not allow it (403), or the API server has not read them yet."""


class Fenced(Unavailable):
    """Nothing was asked: this replica's lease has run out, and others may have been given what it serves."""


ERRORS: Final[dict[int, type[ApiError]]] = {404: NotFound, 409: Conflict, 410: Gone}


class KubeClient:
    """An open connection to the API server; to be used as an async context manager."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.may_write: Callable[[], bool] = lambda: True
        """Asked before every write but those of leases."""
        self._session: aiohttp.ClientSession | None = None
        self._patience_s = TIMEOUT_S

    @property
    def namespace(self) -> str:
        """The bridge's own, as the connection says."""
        return self.connection.namespace

    async def __aenter__(self) -> KubeClient:
        self._context = self.connection.ssl_context()
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def apply_status(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a whole status (server-side apply, one manager); the body names uid and resourceVersion."""
        meta = body["metadata"]
        path = f"{_path(plural, meta['namespace'], meta['name'])}/status?fieldManager={MANAGER}&force=true"
        return await self._write("PATCH", path, body, "application/apply-patch+yaml")

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """One object; raises NotFound, which alone proves that it is not there."""
        return await self._request("GET", _path(plural, namespace, name))

    async def list_page(self, plural: str, limit: int, token: str = "", namespace: str | None = None) -> dict[str, Any]:
        """One page of all objects, consistent with the newest state; `metadata.continue` leads to the next."""
        query = f"?limit={limit}" + (f"&continue={token}" if token else "")
        return await self._request("GET", _path(plural, namespace) + query)

    def watch_nothing(
        self, plural: str, namespace: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A watch that has nothing but bookmarks to tell, for as long as the API server keeps it; raises ApiError."""
        return self._watch(f"{_path(plural, namespace)}?{WATCH}&{NOBODY}")

    def watch(
        self, plural: str, since: str, namespace: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """What happens after the resourceVersion `since`, as pieces of JSON lines; raises ApiError, as Gone."""
        return self._watch(f"{_path(plural, namespace)}?{WATCH}&resourceVersion={since}")

    @asynccontextmanager
    async def _watch(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        assert self._session is not None, "the client is not open"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._patience_s, sock_read=WATCH_IDLE_S)
        try:
            async with self._session.get(
                self.connection.server + path, headers=self._headers(), timeout=timeout
            ) as answer:
                if answer.status >= 300:
                    raise _error(answer.status, await answer.text(), None)
                with severed(answer):
                    yield answer.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                self._too_late()
            self._trust_after(error)
            raise Unavailable(f"{self.connection.server}: {error or type(error).__name__}") from error

    def _headers(self, content: str = "application/json") -> dict[str, str]:
        try:
            token = self.connection.bearer()
        except OSError as error:
            raise Unavailable(f"cannot read the token for the API server: {error}") from error
        headers = {"Accept": "application/json", "Content-Type": content}
        return {**headers, "Authorization": f"Bearer {token}"} if token else headers

    async def set_finalizer(self, obj: Mapping[str, Any], present: bool) -> dict[str, Any]:
        """Put the mailbox finalizer on a Board, or take it off; raises Conflict if the object has changed."""
        meta = obj["metadata"]
        others = [name for name in meta.get("finalizers") or () if name != FINALIZER]
        wanted = [*others, FINALIZER] if present else others
        kept = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": wanted}
        path = f"{_path('boards', meta['namespace'], meta['name'])}?fieldManager={MANAGER}"
        return await self._write("PATCH", path, {"metadata": kept}, "application/merge-patch+json")

    async def create(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object of one of our kinds; raises Conflict where there is one of that name."""
        path = f"{_path(plural, body['metadata']['namespace'])}?fieldManager={MANAGER}"
        return await self._write("POST", path, body)

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event (core/v1); the body names it."""
        await self._write("POST", f"/api/v1/namespaces/{namespace}/events?fieldManager={MANAGER}", body)

    async def patch_event(self, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        """Change fields of an Event; raises NotFound once the cluster has forgotten it."""
        path = f"/api/v1/namespaces/{namespace}/events/{name}?fieldManager={MANAGER}"
        await self._write("PATCH", path, body, "application/merge-patch+json")

    async def leases(self, namespace: str, label: str) -> list[dict[str, Any]]:
        """The Leases with this label (NAME=VALUE), as they are now; raises Forbidden without rights."""
        answer = await self._request("GET", f"{_leases(namespace)}?{_labelled(label)}")
        return list(answer["items"])

    def watch_leases(self, namespace: str, label: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """What happens to them; raises ApiError."""
        return self._watch(f"{_leases(namespace)}?{WATCH}&{_labelled(label)}")

    async def put_lease(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a Lease, or replace the version that the body names; raises Conflict, NotFound."""
        meta = body["metadata"]
        path = _leases(meta["namespace"])
        if "resourceVersion" in meta:
            return await self._request("PUT", f"{path}/{meta['name']}", body)
        return await self._request("POST", path, body)

    async def delete_lease(self, namespace: str, name: str, version: str) -> None:
        """Delete this version of a Lease; raises Conflict where there is another, NotFound where there is none."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": version}}
        await self._request("DELETE", f"{_leases(namespace)}/{name}", options)

    async def _write(
        self, method: str, path: str, body: Mapping[str, Any], content: str = "application/json"
    ) -> dict[str, Any]:
        if not self.may_write():
            raise Fenced("the lease of this replica has run out: nothing is written until it is renewed")
        return await self._request(method, path, body, content)

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = "application/json"
    ) -> dict[str, Any]:
        assert self._session is not None, "the client is not open"
        headers = self._headers(content)
        data = None if body is None else encoded(body)
        patience_s, began = self._patience_s, time.monotonic()
        timeout = aiohttp.ClientTimeout(total=LONGEST_ANSWER_S, sock_connect=patience_s, sock_read=patience_s)
        try:
            async with self._session.request(
                method, self.connection.server + path, data=data, headers=headers, timeout=timeout
            ) as answer:
                text = await answer.text()
                self._in_time(time.monotonic() - began)
                if answer.status < 300:
                    result: dict[str, Any] = json.loads(text)
                    return result
                raise _error(answer.status, text, answer.headers.get("Retry-After"))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:  # the last: what is no JSON
            if isinstance(error, TimeoutError):
                self._too_late()
            self._trust_after(error)
            raise Unavailable(f"{self.connection.server}: {error or type(error).__name__}") from error

    # What is given up on a thin link has been paid for, and is asked for anew by a new connection: who gives up too
    # soon never gets an answer there.
    def _too_late(self) -> None:
        self._patience_s = min(2 * self._patience_s, LONGEST_TIMEOUT_S)

    def _trust_after(self, error: Exception) -> None:
        if isinstance(error, aiohttp.ClientSSLError):
            self.connection.trust_anew(self._context)

    def _in_time(self, took_s: float) -> None:
        self._patience_s = min(max(TIMEOUT_S, 4 * took_s, self._patience_s / 2), LONGEST_TIMEOUT_S)


@contextmanager
def severed(answer: aiohttp.ClientResponse) -> Iterator[None]:
    """Cut a stream's connection when the stream is left.

    TLS would say good-bye first; a server that is slow to answer that keeps the connection open after its session, and
    its loop, are gone.
    """
    try:
        yield
    finally:
        if answer.connection is not None and answer.connection.transport is not None:
            answer.connection.transport.abort()


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON that is YAML too: an apply patch is read as YAML, which knows no pairs of surrogates."""
    text = json.dumps(body, ensure_ascii=False)
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode(errors="replace")


def _path(plural: str, namespace: str | None = None, name: str = "") -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}{scope}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def _labelled(label: str) -> str:
    return f"labelSelector={quote(label, safe='')}"


def _error(status: int, text: str, retry_after: str | None) -> ApiError:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    message = f"{status}: {message}"[:MAX_MESSAGE]
    if status == 429 or (retry_after and status >= 500):
        asked = float(retry_after) if retry_after and retry_after.isdigit() else 1.0
        return Throttled(message, min(asked, LONGEST_PATIENCE_S))
    # A token that is being rotated, and roles that a starting API server has not read yet, are a matter of time.
    if status == 403:
        return Forbidden(message)
    if status >= 500 or status == 401:
        return Unavailable(message)
    return ERRORS.get(status, Rejected)(message)
