"""An administrator's connection to the API server, for editors that must not slow the machine down as kubectl does."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boardlet_bridge.kube.connection import from_file

GROUP = "/apis/boardlet.dev/v1alpha1"
ANSWER_S = 10.0
AGAIN_S = 0.2
TOO_MANY_REQUESTS = 429


class Away(Exception):
    """The API server did not answer; whether it did what was asked is not known."""


class Refused(Exception):
    """The API server answered, and did not do what was asked."""


class Admin:
    """Objects of one namespace at the API server of a kubeconfig; for one thread."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        described = from_file(kubeconfig)
        self._context = described.ssl_context()
        self._address = urlsplit(described.server)
        self._path = f"{GROUP}/namespaces/{namespace}"
        self._connection: HTTPSConnection | None = None

    def create(self, plural: str, name: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object."""
        body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self._send("POST", f"/{plural}", body)

    def patch(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge-patch a Board and return it."""
        return self._send("PATCH", f"/boards/{name}", body, "application/merge-patch+json")

    def patch_model(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge-patch a BoardModel and return it."""
        return self._send("PATCH", f"/boardmodels/{name}", body, "application/merge-patch+json")

    def delete(self, name: str) -> None:
        """Ask for the deletion of a Board."""
        self._send("DELETE", f"/boards/{name}")

    def boards(self) -> dict[str, dict[str, Any]]:
        """All Boards by name."""
        return {obj["metadata"]["name"]: obj for obj in self._send("GET", "/boards")["items"]}

    def watch(self) -> Iterator[dict[str, Any]]:
        """The Boards as they are and change, until the API server ends it."""
        connection = self._open(timeout_s=30.0)
        try:
            connection.request("GET", f"{self._path}/boards?watch=true&timeoutSeconds=2")
            for line in connection.getresponse():
                yield json.loads(line)["object"]
        except (OSError, HTTPException, ValueError) as error:
            raise Away(repr(error)) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self, timeout_s: float = ANSWER_S) -> HTTPSConnection:
        assert self._address.hostname
        return HTTPSConnection(self._address.hostname, self._address.port, timeout=timeout_s, context=self._context)

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = "application/json"
    ) -> dict[str, Any]:
        # Until a restored etcd has been read, the API server answers 429: come again, as every client of it does.
        deadline = time.monotonic() + ANSWER_S
        while True:
            status, said = self._once(method, path, body, content)
            if status < 300:
                return said
            if status != TOO_MANY_REQUESTS or time.monotonic() > deadline:
                raise Refused(f"{status}: {said.get('message')}")
            time.sleep(AGAIN_S)

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, content: str) -> tuple[int, dict[str, Any]]:
        if self._connection is None:
            self._connection = self._open()
        try:
            data = None if body is None else json.dumps(body)
            self._connection.request(method, self._path + path, data, {"Content-Type": content})
            answer = self._connection.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            raise Away(repr(error)) from error
        return answer.status, said

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            self.close()
