"""The broker's files: exactly whom the bridge lets in, beside the lines of others, and a broker that is told."""

from __future__ import annotations

import hmac
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import broker as brokers
import pytest
from boardlet_bridge.mqtt.credential import BEGIN, END, UsersFile, hang_up, hashed, proves, write_acl, write_keys
from broker import Broker
from broker.access import BRIDGE
from fakes.login import Login, logs_in, until
from hypothesis import given
from hypothesis import strategies as st


def users(path: Path) -> dict[str, str]:
    """Every login of a file, by user."""
    lines = [line for line in path.read_text().splitlines() if ":" in line and not line.startswith("#")]
    return dict(line.split(":", 1) for line in lines)


def test_a_password_is_stored_as_mosquitto_passwd_does(tmp_path: Path, broker_programs: brokers.Programs) -> None:
    """What mosquitto_passwd wrote proves the password to us, and no other one."""
    if broker_programs.name != "mosquitto":
        pytest.skip("mochi-mqtt has no mosquitto_passwd")
    tool = broker_programs.program.path.parents[1] / "bin/mosquitto_passwd"
    path = tmp_path / "users"
    subprocess.run(
        [tool, "-b", "-c", path, "k7m2q9xa", "s3cret"], check=True, timeout=20, env=broker_programs.program.env
    )
    stored = users(path)["k7m2q9xa"]
    assert proves(stored, "s3cret")
    assert not proves(stored, "other")


@pytest.mark.parametrize("line", ["", "$7$x$y$z", "$6$aa$bb", "$7$999999999$AAAA$AAAA", "$7$1$=$=", "plain"])
def test_a_line_of_another_form_proves_nothing(line: str) -> None:
    """Whatever others have written is no error and no password."""
    assert not proves(line, "s3cret")


def test_exactly_the_wanted_are_let_in(tmp_path: Path) -> None:
    """Users come, change their password and go; who is not concerned keeps the line byte for byte."""
    file = UsersFile(tmp_path / "users")
    assert file.write({"aaaaaaaa": "1", "bbbbbbbb": "2"})
    before = users(file.path)
    assert file.write({"aaaaaaaa": "1", "bbbbbbbb": "3", "cccccccc": "4"})
    after = users(file.path)
    assert after["aaaaaaaa"] == before["aaaaaaaa"]
    assert proves(after["bbbbbbbb"], "3")
    assert file.write({"cccccccc": "4"})
    assert users(file.path) == {"cccccccc": after["cccccccc"]}


def test_the_next_bridge_changes_nothing(tmp_path: Path) -> None:
    """A bridge that starts with what an earlier one wrote leaves the file as it is, so that nobody is thrown off."""
    wanted = {f"board{n:03d}": str(n) for n in range(50)}
    assert UsersFile(tmp_path / "users").write(wanted)
    assert not UsersFile(tmp_path / "users").write(wanted)


def test_a_file_torn_by_another_tool_is_made_whole(tmp_path: Path) -> None:
    """Marks that were lost, or lines added below our end, cost nobody a login and admit nobody twice."""
    path = tmp_path / "users"
    file = UsersFile(path)
    file.write({"aaaaaaaa": "1"})
    path.write_text(path.read_text().replace(BEGIN + "\n", "").replace(END, "") + f"dashboard:{hashed('d')}\n")
    assert file.write({"aaaaaaaa": "1", "bbbbbbbb": "2"})
    assert [line.partition(":")[0] for line in path.read_text().splitlines()].count("aaaaaaaa") == 1
    assert set(users(path)) == {"dashboard", "aaaaaaaa", "bbbbbbbb"}


def test_a_board_takes_nobodys_login(tmp_path: Path) -> None:
    """Whoever creates a Board with the name of another user of the broker gets, and takes, nothing."""
    path = tmp_path / "users"
    theirs = f"telegraf:{hashed('theirs')}"
    path.write_text(f"# ours\n{theirs}\n")
    file = UsersFile(path)
    file.write({"telegraf": "derived", "aaaaaaaa": "1"})
    assert file.foreign == ("telegraf",)
    assert path.read_text().splitlines()[:2] == ["# ours", theirs]
    assert path.read_text().count("telegraf") == 1
    file.write({"aaaaaaaa": "1"})
    assert theirs in path.read_text(), "and their line stays when the Board goes"


def test_a_line_made_by_hand_becomes_ours(tmp_path: Path) -> None:
    """A line that holds the board's own password (boardlet password) was meant for it: it goes when the Board goes."""
    path = tmp_path / "users"
    path.write_text(f"k7m2q9xa:{hashed('derived')}\n")
    file = UsersFile(path)
    file.write({"k7m2q9xa": "derived"})
    assert file.foreign == ()
    file.write({})
    assert users(path) == {}


def test_owner_group_and_mode_stay(tmp_path: Path) -> None:
    """A file that the broker's user could read stays readable for it; a new one is nobody else's."""
    path = tmp_path / "users"
    UsersFile(path).write({"aaaaaaaa": "1"})
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    before = path.stat()
    UsersFile(path).write({})
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["users"], "nothing half-written is left"


@given(st.lists(st.text(alphabet="ab:$#\n", max_size=12), max_size=8))
def test_lines_of_others_are_kept_whatever_they_are(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    """Any text above our part survives any number of our writes."""
    path = tmp_path_factory.mktemp("any") / "users"
    path.write_text("\n".join(lines))
    above = path.read_text().splitlines()
    UsersFile(path).write({"cccccccc": "1"})
    UsersFile(path).write({})
    assert path.read_text().splitlines() == [*above, BEGIN, END]


def test_no_other_process_is_ended(tmp_path: Path) -> None:
    """A number that is not the broker's any more gets no signal that would end it, and says nothing is told."""
    pid_file = tmp_path / "pid"
    assert not hang_up(pid_file)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as innocent:
        pid_file.write_text(f"{innocent.pid}\n")
        assert not hang_up(pid_file)
        assert innocent.poll() is None
        innocent.terminate()
    assert not hang_up(pid_file), "a process that has ended is no error either"
    for nonsense in ("", "-1", "0", "mosquitto"):
        pid_file.write_text(nonsense)
        with pytest.raises(OSError, match="no process number"):
            hang_up(pid_file)


@pytest.fixture
def running(tmp_path: Path, broker_programs: brokers.Programs) -> Iterator[Broker]:
    if broker_programs.name != "mosquitto":
        pytest.skip("the files are mosquitto's")
    made = Broker(tmp_path, broker_programs)
    made.kept_by_bridge = True
    made.users[BRIDGE] = "bridge-secret"
    with made:
        yield made


def test_an_empty_file_lets_nobody_in(tmp_path: Path, broker_programs: brokers.Programs) -> None:
    """mosquitto starts with empty files, as docs/operations.md makes them, refuses everybody, and takes ours then."""
    if broker_programs.name != "mosquitto":
        pytest.skip("the files are mosquitto's")
    made = Broker(tmp_path, broker_programs)
    made.kept_by_bridge = True
    made.users_file.touch()
    made.acl_file.touch()
    with made:
        assert not logs_in(made.port, BRIDGE, "bridge-secret")
        UsersFile(made.users_file).write({BRIDGE: "bridge-secret"})
        write_acl(made.acl_file, BRIDGE)
        assert hang_up(made.pid_file)
        assert until(lambda: logs_in(made.port, BRIDGE, "bridge-secret"))


def test_the_broker_takes_what_we_write(running: Broker) -> None:
    """After the signal mosquitto lets the new user in, throws the removed one off, and leaves the others alone."""
    file = UsersFile(running.users_file)
    wanted = {BRIDGE: "bridge-secret", "aaaaaaaa": "1", "bbbbbbbb": "2"}
    file.write(wanted)
    write_acl(running.acl_file, BRIDGE)
    assert hang_up(running.pid_file)
    assert until(lambda: logs_in(running.port, "aaaaaaaa", "1"))
    assert not logs_in(running.port, "aaaaaaaa", "2")
    with Login(running.port, "aaaaaaaa", "1") as a, Login(running.port, "bbbbbbbb", "2") as b:
        assert a.up
        assert b.up
        del wanted["aaaaaaaa"]
        file.write(wanted)
        assert hang_up(running.pid_file)
        assert until(lambda: a.gone)
        assert not b.gone
    assert not logs_in(running.port, "aaaaaaaa", "1")


def test_the_keys_of_tls_are_kept_beside_those_of_others(tmp_path: Path) -> None:
    """The wanted boards' keys and no others, each its own, none its password; lines of others stay; writes end."""
    path = tmp_path / "psk"
    path.write_text("dashboard:00ff\n")
    assert write_keys(path, {"aaaaaaaa": "1", "bbbbbbbb": "2"})
    assert set(users(path)) == {"dashboard", "aaaaaaaa", "bbbbbbbb"}
    assert users(path)["aaaaaaaa"] == hmac.digest(b"1", b"k", "sha256").hex()
    assert users(path)["bbbbbbbb"] != users(path)["aaaaaaaa"]
    assert not write_keys(path, {"bbbbbbbb": "2", "aaaaaaaa": "1"})
    assert write_keys(path, {"bbbbbbbb": "2"})
    assert users(path) == {"dashboard": "00ff", "bbbbbbbb": hmac.digest(b"2", b"k", "sha256").hex()}


def test_ten_thousand_boards_are_in_step_in_a_minute(running: Broker) -> None:
    """10,000 new users are hashed, written and let in within a minute; one more takes less than a second then."""
    file = UsersFile(running.users_file)
    wanted = {BRIDGE: "bridge-secret"} | {f"board{n:06d}": str(n) for n in range(10_000)}

    def in_step(user: str, password: str) -> float:
        began = time.monotonic()
        file.write(wanted)
        assert hang_up(running.pid_file)
        assert until(lambda: logs_in(running.port, user, password), 60)
        return time.monotonic() - began

    first = in_step("board009999", "9999")
    wanted["another0"] = "1"
    one = in_step("another0", "1")
    began = time.monotonic()
    assert not UsersFile(running.users_file).write(wanted)
    checked = time.monotonic() - began
    print(f"10,000 in step in {first:.2f} s, one more in {one:.2f} s; a new bridge checks all in {checked:.2f} s")
    assert first < 60
    assert one < 1
