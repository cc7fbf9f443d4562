"""The client on a real API server: a status is taken whatever a board or a user has written into it."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from boardlet_bridge.kube import connection
from boardlet_bridge.kube.client import KubeClient, Unavailable
from boardlet_cli.cluster import Cluster
from controlplane import ControlPlane

BOARD: dict[str, Any] = {
    "apiVersion": "boardlet.dev/v1alpha1",
    "kind": "Board",
    "metadata": {"name": "g1"},
    "spec": {"boardID": "k7m2q9xa", "modelRef": {"name": "greenhouse"}},
}
EVERY_KIND_OF_CHARACTER = 'ü \U0001f600 "quoted" \\ud83d\\ude00 \x00\x07\n\x7f\x80\x85\x9f\u2028\ufeff\ufffe\uffff'


def written(plane: ControlPlane, cluster: Cluster, *reported: dict[str, Any]) -> list[dict[str, Any]]:
    """What status.reported is after each of these has been applied."""
    cluster.run("create", "-f", "-", stdin=json.dumps(BOARD))
    uid = cluster.get("board", "g1")["metadata"]["uid"]

    async def run() -> list[dict[str, Any]]:
        async with KubeClient(connection.from_file(plane.kubeconfig())) as client:
            meta = {"name": "g1", "namespace": cluster.namespace, "uid": uid}
            bodies = [{**BOARD, "metadata": meta, "status": {"reported": values}} for values in reported]
            for body in bodies:
                del body["spec"]
            return [(await client.apply_status("boards", body))["status"]["reported"] for body in bodies]

    return asyncio.run(run())


def test_any_text_can_be_written(plane: ControlPlane, cluster: Cluster) -> None:
    """Emoji and control characters, which YAML knows only in part, arrive as they are, as values and as names."""
    values = {"label": EVERY_KIND_OF_CHARACTER, "\U0001f600 ü": 1}
    assert written(plane, cluster, values) == [values]


def test_a_status_is_one_value_to_the_api_server(plane: ControlPlane, cluster: Cluster) -> None:
    """Who wrote it is kept once for all of a status, and not for each field: that would be half of every answer."""
    written(plane, cluster, {"led": True, "light": 1.5})
    told = cluster.run("get", "board", "g1", "-o", "json", "--show-managed-fields").stdout
    ours = [entry for entry in json.loads(told)["metadata"]["managedFields"] if entry.get("subresource") == "status"]
    assert [entry["fieldsV1"] for entry in ours] == [{"f:status": {}}]


def test_the_last_value_can_go(plane: ControlPlane, cluster: Cluster) -> None:
    """A board that reports nothing any more, as after a change of its model, has a status that says so."""
    assert written(plane, cluster, {"led": True}, {}, {"door": False}, {"light": 1.5}) == [
        {"led": True},
        {},
        {"door": False},
        {"light": 1.5},
    ]


def test_a_watch_that_is_left_leaves_nothing_open(plane: ControlPlane, cluster: Cluster) -> None:
    """Its connection ends with it, even when the API server is too busy to answer TLS's good-bye."""

    async def run() -> None:
        async with KubeClient(connection.from_file(plane.kubeconfig())) as client:
            await client.list_page("boards", 1)
            async with client.watch_nothing("boards", cluster.namespace):
                plane.pause()

    try:
        asyncio.run(run())
        gc.collect()  # complains of what is open, and a complaint is an error
    finally:
        plane.resume()


def test_an_answer_that_is_no_json_is_a_server_that_is_not_well() -> None:
    """As from a proxy on the way that answers in the API server's stead."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{")
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with KubeClient(connection.Connection(f"http://127.0.0.1:{port}")) as client:
                with pytest.raises(Unavailable):
                    await client.list_page("boards", 1)

    asyncio.run(run())
