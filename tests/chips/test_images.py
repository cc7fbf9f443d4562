"""Images: told apart by their own bytes, pinned to a hash, fetched from a real HTTP server that also breaks off."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from chips import BAD_IMAGE, ChipError, images
from chips.boards import kinds
from chips.image import read
from made import esp_image, uf2_image

ESP32 = kinds()["esp32"]
NAME = "ESP32_GENERIC-20260401-v1.28.0.bin"


def nobody(have: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture(autouse=True)
def cache(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("BOARDLET_CACHE", str(own / "cache"))


class Server:
    """Serves one file; `breaks` says after how many bytes the next answers are cut."""

    def __init__(self, content: bytes) -> None:
        self.content, self.breaks, self.asked = content, [], []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                start = int(self.headers.get("Range", "bytes=0-")[6:-1])
                server.asked.append(start)
                rest = server.content[start:]
                if start and not rest:
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: server.breaks.pop(0)] if server.breaks else rest)

            def log_message(self, *words: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/{NAME}"


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server with an image for the ESP32."""
    made = Server(esp_image(ESP32))
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def test_an_image_is_fetched_once(server: Server, own: Path) -> None:
    """What was pinned is found for its kind of board, and by its name, without asking the server again."""
    told: list[tuple[int, int]] = []
    pin = images.add(server.url, None, None, lambda have, total: told.append((have, total)))
    assert (pin.board, pin.sha256) == ("esp32", hashlib.sha256(server.content).hexdigest())
    assert told[-1] == (len(server.content), len(server.content))
    for wanted in (None, NAME):
        found = images.find(wanted, ESP32, nobody)
        assert (found.content, found.version) == (server.content, (1, 28, 0))
    assert server.asked == [0]


def test_a_pinned_image_is_fetched_when_it_is_needed(server: Server, own: Path) -> None:
    """A table that somebody wrote by hand is enough; a file that has another hash is not used, and not kept."""
    entry = {"board": "esp32", "url": server.url, "sha256": hashlib.sha256(server.content).hexdigest()}
    images.own_table().write_text(yaml.safe_dump({NAME: entry}))
    assert images.find(None, ESP32, nobody).content == server.content
    images.pins()[NAME].cached.unlink()
    server.content = esp_image(ESP32, version="1.29.0")
    for _ in range(2):
        with pytest.raises(ChipError, match="as pinned: nothing was written"):
            images.find(None, ESP32, nobody)
        assert not images.pins()[NAME].cached.exists()


def test_a_broken_line_is_gone_on_with(server: Server, own: Path) -> None:
    """A download that breaks off says so, and the next one fetches only the rest."""
    server.breaks = [70_000, 0]
    for _ in range(2):
        with pytest.raises(ChipError, match="run it again, it goes on"):
            images.add(server.url, None, None, nobody)
    assert images.add(server.url, None, None, nobody).cached.read_bytes() == server.content
    assert server.asked == [0, 70_000, 70_000]


def test_without_a_network(own: Path) -> None:
    """A file that was added, or is named, needs no server; a server that is not there is an error that says so."""
    path = own / NAME
    path.write_bytes(esp_image(ESP32))
    images.add(str(path), None, None, nobody)
    assert images.find(None, ESP32, nobody).content == path.read_bytes()
    assert images.find(str(path), ESP32, nobody).content == path.read_bytes()
    path.unlink()
    assert images.find(None, ESP32, nobody).version == (1, 28, 0)
    with pytest.raises(ChipError, match="cannot fetch"):
        images.add(f"http://127.0.0.1:9/{NAME}", None, None, nobody)


def test_a_cache_that_was_damaged(own: Path) -> None:
    """A cached file that changed is never written to a chip."""
    (own / NAME).write_bytes(esp_image(ESP32))
    cached = images.add(str(own / NAME), None, None, nobody).cached
    cached.write_bytes(b"\xe9" + cached.read_bytes()[1:-1])
    with pytest.raises(ChipError, match="damaged in the cache"):
        images.find(None, ESP32, nobody)
    with pytest.raises(ChipError, match="gone from the cache"):
        images.find(None, ESP32, nobody)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (None, "no image of MicroPython is known for ESP32: get ESP32_GENERIC from"),
        ("none.bin", "neither a file nor"),
        ("http://example.org/x.bin", "not pinned to a hash"),
    ],
)
def test_no_image(own: Path, wanted: str | None, words: str) -> None:
    """Where there is none, the error says where to get one and what to type."""
    with pytest.raises(ChipError, match=words) as caught:
        images.find(wanted, ESP32, nobody)
    assert caught.value.code == BAD_IMAGE


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1]", "is damaged"), ("x: {board: esp32}", "is damaged"), ("x: {board: mars, sha256: ab}", "needs a board")],
)
def test_a_table_that_is_damaged(own: Path, text: str, words: str) -> None:
    """A table that a person got wrong is named, with the form it should have."""
    images.own_table().write_text(text)
    with pytest.raises(ChipError, match=words):
        images.pins()


@pytest.mark.parametrize("key", [key for key, kind in kinds().items() if kind.method != "dfu"])
def test_whose_an_image_is(own: Path, key: str) -> None:
    """Its name or its own bytes say for which kind of board it is; it is refused for every other chip."""
    kind = kinds()[key]
    content = esp_image(kind) if kind.method == "esptool" else uf2_image(kind.families[0])
    path = own / (
        "image.bin" if kind.image_chip_id is not None or kind.families else f"{kind.micropython_board}-v1.28.0.bin"
    )
    path.write_bytes(content)
    assert images.add(str(path), None, None, nobody).board == key
    image = read(path)
    image.check(kind)
    for other in kinds().values():
        same = other.chip == kind.chip or other.method == "dfu" or (other.key == "esp8266" and kind.method == "esptool")
        if not same and not (kind.key == "esp8266" and other.key == "esp32"):
            with pytest.raises(ChipError, match="take the"):
                image.check(other)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not begin with 0xE9"),
        (b"PK" + bytes(100), "does not begin with 0xE9"),
        (esp_image(kinds()["esp32c3"]), "is for the chip with the id 5, and the ESP32 has 0"),
        (esp_image(ESP32, version="1.24.1"), "is MicroPython 1.24.1, and 1.25 or newer is needed"),
    ],
)
def test_images_that_do_not_fit(own: Path, content: bytes, words: str) -> None:
    """What is damaged, another chip's or too old is refused before anything is erased."""
    (own / "x.bin").write_bytes(content)
    with pytest.raises(ChipError, match=words):
        images.find(str(own / "x.bin"), ESP32, nobody)


def test_a_uf2_file_that_was_cut(own: Path) -> None:
    """Every block is looked at: one that is damaged, or half, is found."""
    pico = kinds()["rp2_pico_w"]
    whole = uf2_image()
    for content, words in (
        (whole[:-100], "no whole UF2"),
        (whole[:512] + bytes(512) + whole[1024:], "damaged at block 1"),
    ):
        (own / "x.uf2").write_bytes(content)
        with pytest.raises(ChipError, match=words):
            images.find(str(own / "x.uf2"), pico, nobody)
