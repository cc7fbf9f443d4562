"""The board behind a serial port does what a chip does, as the unmodified mpremote command sees it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import serial
from virtualboard.pty import PtyBoard

COUNT = """
import time
try:
    with open("count") as f:
        n = int(f.read())
except OSError:
    n = 0
with open("count", "w") as f:
    f.write(str(n + 1))
while True:
    time.sleep_ms(5)
"""
TALK = "while True:\n    print('x' * 200)\n"


def mpremote(board: PtyBoard, *words: str) -> str:
    """What the command prints; it must succeed."""
    command = [sys.executable, "-m", "mpremote", "connect", board.port, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(true: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def started(board: PtyBoard) -> int:
    """How often main.py has run."""
    path = board.flash / "count"
    return int(path.read_text() or 0) if path.exists() else 0


@pytest.fixture
def counting(unpowered: PtyBoard) -> Iterator[PtyBoard]:
    """A board whose main.py runs for ever."""
    (unpowered.flash / "main.py").write_text(COUNT)
    with unpowered:
        until(lambda: started(unpowered) == 1)
        yield unpowered


def test_files_and_code(board: PtyBoard, tmp_path) -> None:
    """mpremote copies files there and back, and runs code, with the bytes that mean something to a prompt in them."""
    content = bytes(range(256)) * 20
    (tmp_path / "there").write_bytes(content)
    mpremote(board, "fs", "cp", str(tmp_path / "there"), ":x.bin")
    assert (board.flash / "x.bin").read_bytes() == content
    mpremote(board, "fs", "cp", ":x.bin", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    assert mpremote(board, "exec", "print(b'\\x01\\x02\\x03\\x04')") == "b'\\x01\\x02\\x03\\x04'\n"


def test_ctrl_c_ends_main_py(counting: PtyBoard) -> None:
    """A running main.py is interrupted for mpremote, and a soft reset in the raw REPL does not run it again."""
    assert mpremote(counting, "exec", "print(6 * 7)") == "42\n"
    assert started(counting) == 1


def test_ctrl_d_runs_main_py_again(counting: PtyBoard) -> None:
    """A soft reset at the friendly prompt runs main.py again."""
    with serial.Serial(counting.port, timeout=10) as port:
        port.write(b"\r\x03")
        assert b">>> " in port.read_until(b">>> ")
        port.write(b"\x04")
        assert b"soft reboot" in port.read_until(b"soft reboot\r\n")
        until(lambda: started(counting) == 2)


def test_a_hard_reset_runs_main_py_again(counting: PtyBoard) -> None:
    """machine.reset() runs main.py again even out of the raw REPL."""
    mpremote(counting, "exec", "--no-follow", "import machine; machine.reset()")
    until(lambda: started(counting) == 2)


def test_a_board_that_nobody_listens_to_goes_on(unpowered: PtyBoard) -> None:
    """What it prints meanwhile is lost; it can still be interrupted, used, and switched off."""
    (unpowered.flash / "main.py").write_text(TALK)
    with unpowered as board:
        until(lambda: not board._heard)
        assert mpremote(board, "exec", "print(6 * 7)") == "42\n"
        mpremote(board, "reset")
        until(lambda: not board._heard)


def test_a_long_answer_is_whole(board: PtyBoard) -> None:
    """A host that reads gets every byte, however much more it is than the port's buffer."""
    assert mpremote(board, "exec", "for i in range(3000): print('%0100d' % i)").count("\n") == 3000
