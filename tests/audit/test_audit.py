"""`make audit` says what is known, or that nothing could be asked, and never takes the one for the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from audit.__main__ import LOCKS, main
from audit.osv import Package, pinned
from provision.process import free_port


class Osv(ThreadingHTTPServer):
    """A server with OSV's API that knows of one package, or answers what a test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.known: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.instead: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        results = []
        for query in body["queries"]:
            assert query["package"]["ecosystem"] == "PyPI"
            key = query["package"]["name"], query["version"]
            self.server.asked.append(key)
            ids = self.server.known.get(key, [])
            results.append({"vulns": [{"id": i, "modified": "2026-01-01T00:00:00Z"} for i in ids]} if ids else {})
        right = (200, json.dumps({"results": results}).encode()) if self.path == "/v1/querybatch" else (404, b"")
        code, said = self.server.instead or right
        self.send_response(code)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[Osv]:
    with Osv() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_every_pinned_package_is_asked_about(osv: Osv, capsys: pytest.CaptureFixture[str]) -> None:
    """Both lock files are read whole, each package is asked about once, and where nothing is known the code is 0."""
    assert main(["--url", osv.url]) == 0
    wanted = {(p.name, p.version) for lock in LOCKS.values() for p in pinned(lock)}
    assert sorted(osv.asked) == sorted(wanted)
    assert {"paho-mqtt", "kopf", "pytest"} <= {name for name, _ in wanted}
    assert f"nothing is known against {len(wanted)} packages" in capsys.readouterr().out


def test_what_is_known_is_told_with_where_it_is(osv: Osv, capsys: pytest.CaptureFixture[str]) -> None:
    """A vulnerable package is named with its version, its lock files and what is known; the code is 1."""
    [kopf] = [p for p in pinned(LOCKS["bridge"]) if p.name == "kopf"]
    osv.known[(kopf.name, kopf.version)] = ["PYSEC-2", "GHSA-1"]
    assert main(["--url", osv.url]) == 1
    assert f"kopf {kopf.version} (bridge, development): GHSA-1 PYSEC-2" in capsys.readouterr().out


@pytest.mark.parametrize("instead", [(500, b"{}"), (200, b"<html>"), (200, b"[]"), (200, b'{"results": []}'), None])
def test_no_answer_is_no_good_news(
    osv: Osv, instead: tuple[int, bytes] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that is away, fails, or is something else: the code is 3, and it says that nothing was audited."""
    osv.instead = instead
    assert main(["--url", osv.url if instead else f"http://127.0.0.1:{free_port()}"]) == 3
    shown = capsys.readouterr()
    assert "nothing was audited" in shown.err
    assert shown.out == ""


def test_a_wrong_lock_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there, is empty, or leaves a version open: the code is 2, before anybody is asked."""
    lock = tmp_path / "lock.txt"
    assert main([str(lock)]) == 2
    for text in ("", "# nothing\n", "kopf==1.45\naiohttp>=3\n"):
        lock.write_text(text)
        assert main([str(lock)]) == 2
    assert "aiohttp>=3" in capsys.readouterr().err
    lock.write_text("Foo[bar]==1.2 ; python_version < '3.12' \\\n    --hash=sha256:00\n")
    assert pinned(lock) == [Package("foo", "1.2")]
