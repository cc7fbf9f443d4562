"""backup and restore as a user runs them, against a real MicroPython and the real esptool, and what interrupts them."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boardlet_cli import restore
from boardlet_cli.device import DeviceError
from boardlet_cli.report import Lines
from boardlet_cli.restore import _unpacked
from chips import BAD_IMAGE, ChipError
from chips.boards import kinds
from chips.image import read
from chips.ports import Port
from made import esp_image
from virtualboard import rom
from virtualboard.chip import VirtualChip
from virtualboard.pty import PtyBoard

MakeChip = Callable[..., VirtualChip]
FILES = {
    "main.py": b"import time\nwhile True: time.sleep_ms(5)\n",
    "config.json": b'{"id": "k7m2q9xa", "key": "00"}',
    "boardlet/agent.mpy": bytes(range(256)) * 30,
    "boardlet/link.mpy": bytes(range(255, -1, -1)) * 30,
    "state/model.0": b"\0\1\2",
    "own/notes.txt": "ä\n".encode(),
    "empty": b"",
}


@pytest.fixture
def board(own: Path) -> Iterator[PtyBoard]:
    """With files, and running."""
    made = PtyBoard(own / "board")
    for path, content in FILES.items():
        (made.flash / path).parent.mkdir(exist_ok=True)
        (made.flash / path).write_bytes(content)
    with made:
        yield made


def on_flash(board: PtyBoard) -> dict[str, bytes]:
    """Every file of the board."""
    return {str(p.relative_to(board.flash)): p.read_bytes() for p in board.flash.rglob("*") if p.is_file()}


def start(*words: str) -> subprocess.Popen[str]:
    """`boardlet` with these words."""
    command = [sys.executable, "-m", "boardlet_cli.main", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def boardlet(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    with start(*words) as running:
        out, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    return subprocess.CompletedProcess(words, running.returncode, out, err)


def at_progress(act: Callable[[subprocess.Popen[str]], None], *words: str) -> subprocess.CompletedProcess[str]:
    """Run it, and do something at its first progress."""
    with start(*words, "--json") as running:
        assert running.stdout is not None
        said = ""
        for line in running.stdout:
            said += line
            if json.loads(line)["event"] == "progress":
                act(running)
                break
        out, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    return subprocess.CompletedProcess(words, running.returncode, said + out, err)


def interrupt(running: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    running.send_signal(signal.SIGINT)


class Cut(Lines):
    """Something happens at the first progress."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def progress(self, part: float) -> None:
        self._act()


def ctrl_c() -> None:
    """As Python tells it."""
    raise KeyboardInterrupt


def test_there_and_back(board: PtyBoard, own: Path) -> None:
    """A board is again what it was at its backup, however damaged its identity; only what differs is written.

    Files that are nobody's business stay, and a dry run, or nobody to ask, changes nothing.
    """
    saved = str(own / "saved.tar")
    done = boardlet("backup", board.port, "-o", saved)
    assert done.returncode == 0, done.stdout + done.stderr
    (board.flash / "config.json").write_text("{")
    (board.flash / "boardlet/agent.mpy").write_bytes(b"another")
    (board.flash / "boardlet/link.py").write_bytes(b"it would be taken instead of the .mpy")
    (board.flash / "own/notes.txt").unlink()
    (board.flash / "own/more.txt").write_bytes(b"later")
    damaged = on_flash(board)
    asked = boardlet("restore", saved, board.port)
    dry = boardlet("restore", saved, board.port, "--dry-run", "--json")
    assert (asked.returncode, dry.returncode) == (2, 0), asked.stderr + dry.stderr
    assert on_flash(board) == damaged
    plan = json.loads(dry.stdout.splitlines()[0])
    assert plan["write"] == ["boardlet/agent.mpy", "config.json", "own/notes.txt"]
    assert (plan["remove"], plan["boardID"]) == (["boardlet/link.py"], "k7m2q9xa")
    done = boardlet("restore", saved, board.port, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert on_flash(board) == {**FILES, "own/more.txt": b"later"}
    again = boardlet("restore", saved, board.port, "--yes")
    assert "it is as it was at its backup" in again.stdout


def test_interrupted_and_run_again(board: PtyBoard, own: Path) -> None:
    """Ctrl-C, then a power cut: a board that is half restored starts nothing, and the same command finishes it."""
    saved = str(own / "saved.tar")
    boardlet("backup", board.port, "-o", saved)
    (board.flash / "boardlet/agent.mpy").unlink()
    for act, error in ((ctrl_c, KeyboardInterrupt), (board.kill, DeviceError)):
        with pytest.raises(error):
            restore._files(_unpacked(read(Path(saved))), Port(board.port), False, True, Cut(act))
        assert "main.py" not in on_flash(board)
        assert FILES["boardlet/agent.mpy"] != on_flash(board).get("boardlet/agent.mpy")
    done = boardlet("restore", saved, board.port, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert on_flash(board) == FILES


def test_another_board_is_not_made_its_twin(board: PtyBoard, own: Path) -> None:
    """The backup of one board is refused by another, which stays what it is; one that was erased takes it."""
    saved = str(own / "saved.tar")
    boardlet("backup", board.port, "-o", saved)
    (board.flash / "config.json").write_bytes(b'{"id": "bbbbbbb2", "key": "00"}')
    refused = boardlet("restore", saved, board.port, "--yes")
    assert refused.returncode == 1
    assert "is the board bbbbbbb2, and the backup is of k7m2q9xa" in refused.stderr
    assert on_flash(board)["config.json"] == b'{"id": "bbbbbbb2", "key": "00"}'
    for words in (["erase", board.port], ["restore", saved, board.port]):
        done = boardlet(*words, "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
    assert on_flash(board) == FILES


def test_the_whole_flash(make_chip: MakeChip, own: Path) -> None:
    """A whole flash is written back byte for byte over a bad cable, after an interruption too; no other is.

    A backup that was interrupted is none, and not in the way of the same command again.
    """
    chip = make_chip("esp32c3")
    del chip.flash[1 << 20 :]
    before = bytearray(chip.flash)
    image = esp_image(kinds()["esp32c3"], version="1.20.0")  # as old as it may be
    before[: len(image)] = image
    chip.flash[:] = before
    saved = str(own / "whole.bin")
    chip.faults.unplug_at[rom.READ_FLASH] = 0
    pulled = boardlet("backup", str(chip.port), "--chip", "-o", saved)
    assert (pulled.returncode, Path(saved).exists()) == (6, False), pulled.stderr
    chip.plug()
    done = boardlet("backup", str(chip.port), "--chip", "-o", saved)
    assert done.returncode == 0, done.stdout + done.stderr
    chip.flash[:] = bytes(len(chip.flash))
    (own / "cut.bin").write_bytes(before[:-4096])
    (own / "other.bin").write_bytes(esp_image(kinds()["esp32s3"]).ljust(len(before), b"\xff"))
    for name, words in (("cut.bin", "it is no whole backup"), ("other.bin", "the ESP32-C3 has 5")):
        refused = boardlet("restore", str(own / name), str(chip.port), "--yes")
        assert (refused.returncode, words in refused.stderr) == (BAD_IMAGE, True), refused.stderr
    assert set(chip.flash) == {0}
    done = at_progress(interrupt, "restore", saved, str(chip.port), "--yes")
    assert done.returncode == 130, done.stdout + done.stderr
    chip.faults.loses_above_baud = 115200
    done = boardlet("restore", saved, str(chip.port), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trying again at 115200 baud" in done.stdout
    assert chip.flash == before


def packed(*entries: tarfile.TarInfo) -> bytes:
    """A tar of these."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in entries:
            entry.size = 5 if entry.isfile() else 0
            tar.addfile(entry, io.BytesIO(b"hello"))
    return out.getvalue()


def link(name: str) -> tarfile.TarInfo:
    """Not a file."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (packed(tarfile.TarInfo("a"))[:1024], "is cut"),
        (packed(tarfile.TarInfo("a"))[:600], "is cut"),
        (packed(tarfile.TarInfo("../a")), "which no board's backup does"),
        (packed(tarfile.TarInfo("/a")), "which no board's backup does"),
        (packed(tarfile.TarInfo("a"), tarfile.TarInfo("./a")), "which no board's backup does"),
        (packed(link("a")), "which no board's backup does"),
        (b"x" * 257 + b"ustar" + bytes(2000), "is damaged"),
    ],
)
def test_tars_that_are_none(own: Path, content: bytes, words: str) -> None:
    """What is cut, or holds what no backup does, is refused before a board is touched."""
    (own / "x.tar").write_bytes(content)
    with pytest.raises(ChipError, match=words):
        _unpacked(read(own / "x.tar"))
