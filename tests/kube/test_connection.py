"""How a kubeconfig is read, and what is said of a wrong one: its path, what is wrong with it, and what to do."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from boardlet_bridge.kube.client import KubeClient, Unavailable
from boardlet_bridge.kube.connection import Connection, ConnectionInvalid, from_file
from controlplane.pki import Authority

SERVER = "https://127.0.0.1:6443"


def kubeconfig(folder: Path, cluster: dict[str, object], user: dict[str, object]) -> Path:
    path = folder / "kubeconfig"
    config = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "kubeconfig: it is empty, or no kubeconfig"),
        ("[", "kubeconfig: while parsing"),
        ("{}", "kubeconfig: it has no current-context: name one with --context"),
        ("current-context: a", "kubeconfig: it has no context 'a', there is none"),
    ],
)
def test_a_file_that_is_no_kubeconfig(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake is one line that names the file."""
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConnectionInvalid, match=said) as raised:
        from_file(path)
    assert "\n" not in str(raised.value)


def test_another_context_is_asked_for(tmp_path: Path) -> None:
    """The contexts that there are are named."""
    with pytest.raises(ConnectionInvalid, match="no context 'b', there is a"):
        from_file(kubeconfig(tmp_path, {"server": SERVER}, {}), "b")


@pytest.mark.parametrize(
    ("cluster", "user", "said"),
    [
        ({}, {}, "'server' is missing"),
        ({"server": "localhost"}, {}, "server 'localhost' must begin with https://"),
        ({"server": SERVER, "certificate-authority": "nosuch"}, {}, "No such file"),
        ({"server": SERVER, "certificate-authority-data": "AAAA"}, {}, "authority of .* is no PEM certificate"),
        ({"server": SERVER}, {"client-certificate-data": "AAAA", "client-key-data": "AAAA"}, "is not PEM"),
        ({"server": SERVER}, {"exec": {}}, "exec plugins are not run by the bridge"),
    ],
)
def test_wrong_entries_are_said(tmp_path: Path, cluster: dict[str, object], user: dict[str, object], said: str) -> None:
    """What cannot work is found before anything is sent."""
    with pytest.raises(ConnectionInvalid, match=said):
        from_file(kubeconfig(tmp_path, cluster, user)).ssl_context()


def test_a_token_needs_nothing_to_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod with a read-only root has no temporary folder at all."""
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    monkeypatch.setattr(tempfile, "tempdir", None)
    Connection(SERVER).ssl_context()
    with pytest.raises(ConnectionInvalid, match="has to pass through a temporary file"):
        Connection(SERVER, certificate="x", key="x").ssl_context()


def test_a_token_file_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """A token that is being rotated, or is not mounted yet, is a reason to try again, not to end."""

    async def run() -> None:
        async with KubeClient(Connection(SERVER, token_file=tmp_path / "nosuch")) as client:
            with pytest.raises(Unavailable, match=r"cannot read the token.*nosuch"):
                await client.get("boards", "default", "x")

    asyncio.run(run())


def test_a_new_authority_of_the_cluster_is_taken_over(tmp_path: Path) -> None:
    """A cluster whose authority was replaced is reached again without a restart once the pod's file has the new one."""
    old, new = Authority("old"), Authority("new")
    file = tmp_path / "ca.crt"
    file.write_bytes(old.certificate)

    @asynccontextmanager
    async def server(authority: Authority, port: int) -> AsyncIterator[int]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.server("api", ["127.0.0.1"]).write(tmp_path, "api"))

        async def serve(_: web.BaseRequest) -> web.StreamResponse:
            return web.json_response({})

        runner = web.ServerRunner(web.Server(serve), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            async with server(old, 0) as port:
                described = Connection(f"https://127.0.0.1:{port}", ca=file.read_text(), ca_file=file)
                client = await stack.enter_async_context(KubeClient(described))
                assert await client.get("boards", "default", "x") == {}
            async with server(new, port):
                for _ in range(2):
                    with pytest.raises(Unavailable, match="certificate"):
                        await client.get("boards", "default", "x")
                file.write_bytes(b"half of a cert")
                with pytest.raises(Unavailable, match="certificate"):
                    await client.get("boards", "default", "x")
                file.write_bytes(new.certificate)
                with pytest.raises(Unavailable, match="certificate"):
                    await client.get("boards", "default", "x")
                assert await client.get("boards", "default", "x") == {}
                assert described.authority() == new.certificate.decode()

    asyncio.run(run())
