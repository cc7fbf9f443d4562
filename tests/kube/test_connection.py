"""How a kubeconfig is read, and what is said of a wrong one: its path, what is wrong with it, and what to do."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
import yaml
from boardlet_bridge.kube.client import KubeClient, Unavailable
from boardlet_bridge.kube.connection import Connection, ConnectionInvalid, from_file

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
