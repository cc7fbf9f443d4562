"""backup, erase, info, doctor, site and --from, as a user runs them against real parts."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from boardlet_cli import firmware, fleet
from boardlet_cli.order import FlashFailed
from boardlet_cli.sitefile import SiteError, load
from boardlet_cli.tls import Tls
from controlplane.pki import Authority
from rich.console import Console
from shop import BOARD_ID, Shop
from virtualboard.chip import VirtualChip
from virtualboard.pty import PtyBoard

MakeChip = Callable[..., VirtualChip]


def boardlet(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`boardlet` in a folder, without a cluster."""
    command = [sys.executable, "-m", "boardlet_cli.main", *words]
    own = {**os.environ, "KUBECONFIG": "/dev/null", "XDG_CONFIG_HOME": str(folder), **env}
    return subprocess.run(
        command, cwd=folder, env=own, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def test_the_life_of_a_board(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """A board that was flashed is well by `info`; backup has its files; erased it is a blank one, and info says so.

    Restored from its backup it is well again.
    """
    chip = make_chip("esp32s3", own_usb=True)
    made = shop.flash("--image", str(own / "esp32s3.bin"))
    assert made.returncode == 0, made.stdout + made.stderr
    key = json.loads((own / "chip-0/flash/config.json").read_text())["key"]
    well = shop.run("info", "--site", shop.file, "--json")
    assert well.returncode == 0, well.stdout + well.stderr
    facts = json.loads(well.stdout)
    assert (facts["id"], facts["problems"]) == (BOARD_ID, [])
    assert facts["object"] == "Board g1, Ready True (Synced)"
    assert key not in well.stdout

    saved = shop.run("backup", str(chip.port), "-o", str(own / "saved.tar"))
    assert saved.returncode == 0, saved.stdout + saved.stderr
    assert stat.S_IMODE((own / "saved.tar").stat().st_mode) == 0o600
    with tarfile.open(own / "saved.tar") as tar:
        held = tar.extractfile("config.json")
        assert held is not None
        assert json.loads(held.read())["id"] == BOARD_ID
        assert "boardlet/agent.mpy" in tar.getnames()
    again = shop.run("backup", str(chip.port), "-o", str(own / "saved.tar"))
    assert again.returncode != 0
    assert "name another file" in again.stderr

    asked = shop.run("erase", str(chip.port))
    assert asked.returncode == 2, "nobody can be asked"
    (own / "chip-0/flash/mine.txt").write_text("not Boardlet's")
    gone = shop.run("erase", str(chip.port), "--yes")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    left = {path.name for path in (own / "chip-0/flash").rglob("*") if path.is_file()}
    assert left == {"mine.txt"}
    blank = shop.run("info", "--site", shop.file)
    assert blank.returncode == 1
    assert "it has no identity" in blank.stdout
    back = shop.run("restore", str(own / "saved.tar"), str(chip.port), "--yes")
    assert back.returncode == 0, back.stdout + back.stderr
    assert key not in back.stdout
    well = shop.run("info", "--site", shop.file)
    assert well.returncode == 0, well.stdout + well.stderr


def test_a_board_without_a_cluster(own: Path) -> None:
    """Where there is no kubectl, info tells all the same what the board says, and what is missing."""
    with PtyBoard(own / "board") as board:
        (board.flash / "config.json").write_text('{"id": "k7m2q9xa", "key": "00", "host": "h", "port": 1}')
        done = boardlet(own, "info", board.port, PATH="/nowhere")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "id         k7m2q9xa" in done.stdout
    assert "its object cannot be looked at: kubectl: install it" in done.stdout


def test_what_a_board_says_has_no_power_over_a_terminal(own: Path) -> None:
    """Escape sequences and wrong types in a configuration are told; they move no cursor and break no command."""
    kubectl = own / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text("#!/bin/sh\nexit 1\n")
    kubectl.chmod(0o755)
    (own / "root.key").write_text("ab" * 32)
    held = {"id": "\x1b[2Jx", "key": 7, "key_number": "\x1b[1A", "host": "\x1b]0;h\x07", "port": None, "wifi": 7}
    path = f"{kubectl.parent}:{os.environ['PATH']}"
    with PtyBoard(own / "board") as board:
        (board.flash / "config.json").write_text(json.dumps(held))
        seen = boardlet(own, "info", board.port, "--root-key", "root.key", PATH=path)
        (board.flash / "config.json").write_text(json.dumps({**held, "key_number": 2**70}))
        again = boardlet(own, "info", board.port, "--root-key", "root.key", PATH=path)
    for done in (seen, again):
        assert done.returncode == 1, done.stdout + done.stderr
        assert r"id         \x1b[2Jx" in done.stdout
        assert "its key has no number" in done.stdout
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)
        assert "Traceback" not in done.stderr


def test_a_board_does_not_say_where_its_backup_goes(own: Path) -> None:
    """A path in the place of an id names no file outside of the folder in which the command runs."""
    (own / "here").mkdir()
    with PtyBoard(own / "board") as board:
        (board.flash / "config.json").write_text(json.dumps({"id": "../there"}))
        done = boardlet(own / "here", "backup", board.port)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name[:6] for path in (own / "here").glob("*.tar")] == ["board-"]
    assert list(own.glob("*.tar")) == []


def test_the_whole_flash(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """A chip without MicroPython is read whole, for its owner only, and erased whole."""
    chip = make_chip("esp32c3")
    del chip.flash[1 << 20 :]
    chip.flash[4096:8192] = b"x" * 4096
    before = bytes(chip.flash)
    read = shop.run("backup", str(chip.port), "-o", str(own / "whole.bin"))
    assert read.returncode == 0, read.stdout + read.stderr
    assert (own / "whole.bin").read_bytes() == before
    assert stat.S_IMODE((own / "whole.bin").stat().st_mode) == 0o600
    gone = shop.run("erase", str(chip.port), "--chip", "--yes")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert set(chip.flash) == {0xFF}


def test_many_boards_at_once(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """Two are flashed side by side, one fails: its line says why, the others are Ready, the exit code is 1."""
    ids = {"a1": "aaaaaaa1", "b2": "bbbbbbb2"}
    for board_id in ids.values():
        shop.site.add_board(board_id)
    ports = {}
    for number, (name, kind) in enumerate((("a1", "esp32"), ("b2", "esp32s3"), ("c3", "esp32c3"))):
        ports[name] = make_chip(kind, serial=f"000{number}").port
    images = {"a1": "esp32.bin", "b2": "esp32s3.bin", "c3": "esp32.bin"}
    lines = [f"{ports[name]},{name},{ids.get(name, '')},{own / images[name]}" for name in ports]
    (own / "boards.csv").write_text("\n".join(["port,name,board_id,image", *lines]) + "\n")
    dry = shop.run("flash", "--from", str(own / "boards.csv"), "--site", shop.file, "--dry-run")
    assert "a1: it can be flashed; nothing was changed" in dry.stdout
    assert "2 of 3 boards can be flashed" in dry.stdout
    done = shop.run("flash", "--from", str(own / "boards.csv"), "--site", shop.file)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a1: Ready" in done.stdout
    assert "b2: Ready" in done.stdout
    assert "c3: FAILED: esp32.bin is for the chip with the id 0" in done.stdout
    assert "2 of 3 boards are Ready; run the same command again for the others: c3" in done.stdout
    assert "\x1b" not in done.stdout, "no colours where there is no terminal"
    for name in ids:
        shop.cluster.run("wait", "--for=condition=Ready", f"board/{name}", "--timeout=30s")


def test_many_boards_interrupted(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """Ctrl-C ends every flash that runs, and the command; nothing is left running."""
    port = make_chip().port
    (own / "boards.yaml").write_text(json.dumps([{"port": str(port), "name": "a1", "image": str(own / "esp32.bin")}]))
    running = shop.start("flash", "--from", str(own / "boards.yaml"), "--site", shop.file, "--json")
    out = shop.interrupt(running)
    events = [json.loads(line) for line in out.splitlines()]
    assert {event["name"] for event in events} == {"a1"}
    assert events[-1]["event"] == "failed"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("b.csv", "", "lists no boards"),
        ("b.csv", "port,name\n/dev/a,\n", "board 1: name is missing"),
        ("b.csv", "port,name,colour\n/dev/a,x,red\n", "'colour' is not known"),
        ("b.csv", "port,name\n/dev/a,x,y\n", "board 1: has more columns than the first line names"),
        ("b.csv", "port,name\n/dev/a,--json\n", "name cannot be '--json'"),
        ("b.csv", "port,name\n/dev/a,x\0\n", r"name cannot be 'x\\x00'"),
        ("b.csv", 'port,name\n/dev/a,"x\n', "cannot read"),
        ("b.csv", "port,name\n/dev/null,x\n/dev/../dev/null,y\n", "/dev/null too"),
        ("b.yaml", "- {port: /dev/a, name: x, board_id: 012345670}\n", "board_id is no text but 2739128"),
        ("b.yaml", "boards: 7\n", "lists no boards"),
        ("b.csv", "port,name\n/dev/a,x\n/dev/a,y\n", "has the port /dev/a twice"),
        ("b.yaml", "- {port: /dev/a, name: x}\n- {port: /dev/b, name: x}\n", "has the name x twice"),
        ("b.yaml", "[x", "cannot read"),
        ("b.yaml", "- 7\n", "must be a mapping"),
    ],
)
def test_lists_that_are_wrong(own: Path, name: str, text: str, words: str) -> None:
    """A list that a person got wrong is refused whole, with the board that is meant."""
    (own / name).write_text(text)
    with pytest.raises(FlashFailed, match=words):
        fleet.load(own / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port,name\n/dev/a,x\n", "board 1: name is said when the board is approved"),
        ("port,model\n/dev/a,m\n", "board 1: model is said when the board is approved"),
        ("port\n/dev/a\n/dev/a\n", "has the port /dev/a twice"),
        ("image\nx.bin\n", "board 1: port is missing"),
    ],
)
def test_lists_of_claims_that_are_wrong(own: Path, text: str, words: str) -> None:
    """Boards that are to ask to come in have a port, and nothing that a person says when they are approved."""
    (own / "box.csv").write_text(text)
    with pytest.raises(FlashFailed, match=words):
        fleet.load(own / "box.csv", claims=True)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfport,name,model\r\n/dev/a,x,\r\n/dev/b,y,m\r\n,,\r\n",
        b"Port; Name ;model\n/dev/a; x;\n\n/dev/b;y;m\n",
        b"name\tmodel\tport\nx\t\t/dev/a\ny\tm\t/dev/b\n",
    ],
    ids=["byte order mark", "semicolons", "tabs"],
)
def test_lists_of_a_spreadsheet(own: Path, text: bytes) -> None:
    """However a spreadsheet writes it, the list says the same."""
    (own / "b.csv").write_bytes(text)
    wanted = [row.wanted for row in fleet.load(own / "b.csv")]
    assert wanted == [{"port": "/dev/a", "name": "x"}, {"port": "/dev/b", "name": "y", "model": "m"}]


def test_a_table_shows_what_was_said(own: Path) -> None:
    """Brackets in a port's name or a message are shown as they are, and end no table."""
    row = fleet.Row({"port": "/dev/[/x]", "name": "a1"})
    fleet._take(row, {"event": "failed", "message": "the board says [/red] and [bold]"}, "Ready")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(fleet._table([row]))
    shown = console.export_text()
    assert "/dev/[/x]" in shown
    assert "the board says [/red] and [bold]" in shown


def test_a_list_that_is_not_utf8(own: Path) -> None:
    """What another encoding wrote is told as that, with how to save it."""
    for text in ("port,name\n/dev/a,ü\n".encode("latin1"), "port,name\n/dev/a,x\n".encode("utf-16")):
        (own / "b.csv").write_bytes(text)
        with pytest.raises(FlashFailed, match="not UTF-8: save it as CSV UTF-8"):
            fleet.load(own / "b.csv")


@pytest.mark.parametrize("said", ["soon", "0", "-1", "inf", "nan"])
def test_a_patience_that_is_none(own: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """What cannot be waited for is refused by the variable's name, with what to set instead; unset it has a default."""
    monkeypatch.setenv("BOARDLET_KNOCK_S", said)
    done = boardlet(own, "info", "/dev/null")
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"BOARDLET_KNOCK_S is '{said}': set it to a number of seconds above 0, as 2.5" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.delenv("BOARDLET_KNOCK_S")
    assert firmware.knock_s() == firmware.KNOCK_S


def test_a_site_is_typed_once(own: Path) -> None:
    """init makes a key and keeps secrets to their owner, show tells no secret, neither overwrites anything."""
    (own / "given.txt").write_text("Wi-Fi secret\n")
    words = ["site", "init", "--broker", "10.0.0.5:1884", "--wifi", "north", "--wifi-password-file", "given.txt"]
    made = boardlet(own, *words)
    assert made.returncode == 0, made.stdout + made.stderr
    key = (own / "root.key").read_text().strip()
    assert len(bytes.fromhex(key)) == 32
    for name in ("root.key", "wifi-password"):
        assert stat.S_IMODE((own / name).stat().st_mode) == 0o600
    site = load(own / "site.yaml")
    assert (site.broker, site.wifi, site.root_key_file) == ("10.0.0.5:1884", "north", "root.key")
    kubectl = own / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text("#!/bin/sh\nexit 1\n")
    kubectl.chmod(0o755)
    shown = boardlet(own, "site", "show", PATH=f"{kubectl.parent}:{os.environ['PATH']}")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "10.0.0.5:1884" in shown.stdout
    for done in (made, shown):
        assert key not in done.stdout + done.stderr
        assert "Wi-Fi secret" not in done.stdout + done.stderr
    again = boardlet(own, *words)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    (own / "site.yaml").unlink()
    kept = boardlet(own, *words)
    assert kept.returncode == 1
    assert "cannot write root.key" in kept.stderr
    assert (own / "root.key").read_text().strip() == key


def test_a_site_whose_broker_speaks_tls(own: Path) -> None:
    """init names the authority as the site file finds it from there, and takes no file that is none."""
    (own / "ca.crt").write_bytes(Authority("site").certificate)
    words = ["site", "init", "--broker", "10.0.0.5", "--broker-name", "broker.example", "--ntp", "10.0.0.1"]
    alone = boardlet(own, *words)
    assert alone.returncode == 2
    assert "is needed for TLS" in alone.stderr
    (own / "none.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    wrong = boardlet(own, *words, "--broker-ca", "none.crt")
    assert wrong.returncode == 1
    assert "none.crt is no authority's certificate" in wrong.stderr
    assert not (own / "site.yaml").exists()
    made = boardlet(own, *words, "--broker-ca", "ca.crt")
    assert made.returncode == 0, made.stdout + made.stderr
    site = load(own / "site.yaml")
    assert site.broker_ca_file == "ca.crt"
    assert site.tls() == Tls((own / "ca.crt").read_bytes(), "broker.example", "10.0.0.1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("broker: [1]", "broker must be text"),
        ("model: x", "broker must be text"),
        ("broker: mqtt://x", "is not HOST or HOST:PORT"),
        ("broker: x\ncolour: red", "colour is not known"),
        ("broker: x\nsecret: one", "secret must be NAMESPACE/NAME"),
        ("- x", "is no mapping"),
        ("x: [", "cannot read the site file"),
    ],
)
def test_site_files_that_are_wrong(own: Path, text: str, words: str) -> None:
    """A site file that a person got wrong is named, with what is wrong."""
    (own / "site.yaml").write_text(text)
    with pytest.raises(SiteError, match=words):
        load(own / "site.yaml")


def test_a_site_in_a_secret(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """With --secret the key is in the cluster and in no file, boards are flashed with it, init never replaces it."""
    secret = f"{shop.cluster.namespace}/boardlet-site"
    words = ["site", "init", "--broker", f"127.0.0.1:{shop.site.broker.port}", "--secret", secret]
    words += ["--root-key", str(shop.site.folder / "root.key"), "--namespace", str(shop.cluster.namespace)]
    made = shop.run(*words, "--file", str(own / "other.yaml"))
    assert made.returncode == 0, made.stdout + made.stderr
    assert shop.site.root.hex() not in (own / "other.yaml").read_text() + made.stdout
    make_chip()
    flash = ["flash", "--site", str(own / "other.yaml"), "--name", "g1", "--board-id", BOARD_ID]
    done = shop.run(*flash, "--image", str(own / "esp32.bin"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert shop.ready()
    again = shop.run(*words, "--file", str(own / "third.yaml"))
    assert again.returncode == 1
    assert "already exists" in again.stderr
    assert not (own / "third.yaml").exists()


def test_a_doctor_who_finds_nothing(shop: Shop, make_chip: MakeChip) -> None:
    """Where all is well, doctor says what it has looked at, and ends with 0."""
    chip = make_chip()
    done = shop.run("doctor", "--site", shop.file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    for words in ("program esptool", str(chip.port), "turns strangers away", "cluster v1.", "permissions in"):
        assert words in done.stdout


def test_a_doctor_who_finds_everything(shop: Shop, own: Path) -> None:
    """Port, key, broker and cluster wrong: each with its remedy, and the exit code counts them."""
    (own / "ports/usb-Some_Maker_0001-if00-port0").symlink_to("/nowhere")
    (own / "root.key").write_text("ab" * 32)
    (own / "root.key").chmod(0o644)
    (own / "site.yaml").write_text("broker: 127.0.0.1:9\nrootKeyFile: root.key\n")
    shop.env["KUBECONFIG"] = "/dev/null"
    done = shop.run("doctor", "--site", str(own / "site.yaml"))
    assert done.returncode == 4, done.stdout + done.stderr
    for words in ("usermod -aG", "chmod 600", "broker 127.0.0.1:9", "is KUBECONFIG right"):
        assert words in done.stdout
