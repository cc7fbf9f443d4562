"""What the broker knows of credentials: mosquitto's password and access files, and the signal that has it read them.

A file may have lines of others, as for a dashboard that reads telemetry. Ours stand between two marks at its end and
are written whole; what stands above is kept as it is, and wins where it names the same user, so that nobody takes a
login away by creating a Board of that name. Only a line that holds the board's own password was meant for the board: it
moves to ours (`boardlet password`, by hand). Files are replaced, never written in place: a broker reads the old or the
new one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BOARD_WRITES: Final = "srtawl"
BOARD_READS: Final = "dcfi"
CLAIM_USER: Final = "claim"  # too short for a board's id
BEGIN: Final = "# boardlet: the bridge writes what follows; lines of your own stand above"
END: Final = "# boardlet: end"
NEW_MODE: Final = 0o640
# mosquitto stores PBKDF2-HMAC-SHA512 ($7$iterations$salt$hash, mosquitto_passwd(1)), which hashlib makes too. A board's
# secret is 128 random bits: no dictionary helps against it, and a fleet's file is made in seconds.
_ITERATIONS: Final = 101
_SALT_BYTES: Final = 12
_SHARED: Final = b"k"
_MAX_ITERATIONS: Final = 10_000  # of lines by others, which would hold us up
_PROC: Final = Path("/proc")


def acl(bridge: str, claim: bool = False) -> str:
    """mosquitto's access rules: a board its own topics by pattern, the bridge's user those letters of all boards.

    With `claim` a user of that name may ask to be enrolled and hear the answer, and nothing else.
    """
    lines = ["# Patterns hold for every user; %u is the user name, which for a board is its id."]
    lines += [f"pattern write b/+/%u/{letter}" for letter in BOARD_WRITES]
    lines += [f"pattern read b/+/%u/{letter}" for letter in BOARD_READS]
    lines += ["", f"user {bridge}", "topic read $SYS/#"]
    # It reads its own mailboxes back, and clears the session of a board that was deleted.
    lines += [f"topic read b/+/+/{letter}" for letter in BOARD_WRITES + "d"]
    lines += [f"topic write b/+/+/{letter}" for letter in BOARD_READS + "s"]
    if claim:
        lines += ["topic read e/+/q", "topic write e/+/a"]
        # What is denied comes before what a pattern allows.
        lines += ["", f"user {CLAIM_USER}", "topic deny b/#", "topic write e/+/q", "topic read e/+/a"]
    return "\n".join(lines) + "\n"


def hashed(password: str, salt: bytes | None = None, iterations: int = _ITERATIONS) -> str:
    """A password as mosquitto stores it."""
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def proves(stored: str, password: str) -> bool:
    """Whether what mosquitto stores is this password's; False for any other form of a line."""
    try:
        _, kind, iterations, salt, _ = stored.split("$")
        if kind != "7" or not 0 < int(iterations) <= _MAX_ITERATIONS:
            return False
        again = hashed(password, base64.b64decode(salt, validate=True), int(iterations))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(again, stored)


@dataclass(slots=True)
class UsersFile:
    """mosquitto's password_file. What was hashed once is kept: a change of one board costs one hash."""

    path: Path
    known: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """By user: the password, and how it is stored."""
    foreign: tuple[str, ...] = ()
    """Users that were to be let in and whose line, written by others, holds another password."""

    def write(self, logins: Mapping[str, str]) -> bool:
        """Have exactly these users let in, beside those of others; whether the file changed. Raises OSError."""
        text = _read(self.path)
        above, ours = _split(text)
        theirs = {user: stored for user, _, stored in (line.partition(":") for line in above) if user}
        held = dict(line.split(":", 1) for line in ours if ":" in line)
        adopted, foreign = set(), []
        lines = []
        for user, password in sorted(logins.items()):
            if user in theirs and not user.startswith("#"):
                if not proves(theirs[user], password):
                    foreign.append(user)
                    continue
                adopted.add(user)
                held.setdefault(user, theirs[user])
            lines.append(f"{user}:{self._stored(user, password, held)}")
        self.known = {user: kept for user, kept in self.known.items() if user in logins}
        self.foreign = tuple(foreign)
        above = [line for line in above if line.partition(":")[0] not in adopted]
        return _replace(self.path, text, "\n".join([*above, BEGIN, *lines, END, ""]))

    def _stored(self, user: str, password: str, held: Mapping[str, str]) -> str:
        kept = self.known.get(user)
        if kept is None or kept[0] != password:
            # A bridge that starts finds what an earlier one wrote, and leaves it as it is.
            before = held.get(user, "")
            kept = self.known[user] = (password, before if proves(before, password) else hashed(password))
        return kept[1]


def shared_key(password: str) -> str:
    """The key of TLS that board and broker share (PROTOCOL.md section 4), as mosquitto's psk_file has it."""
    return hmac.digest(password.encode(), _SHARED, "sha256").hex()


def write_keys(path: Path, logins: Mapping[str, str]) -> bool:
    """Have these users' keys alone in mosquitto's psk_file, below others' lines; whether it changed. Raises OSError."""
    text = _read(path)
    above, _ = _split(text)
    lines = [f"{user}:{shared_key(password)}" for user, password in sorted(logins.items())]
    return _replace(path, text, "\n".join([*above, BEGIN, *lines, END, ""]))


def write_acl(path: Path, bridge: str, claim: bool = False) -> bool:
    """Have the access rules in mosquitto's acl_file, below those of others; whether it changed. Raises OSError."""
    text = _read(path)
    above, _ = _split(text)
    return _replace(path, text, "\n".join([*above, BEGIN, acl(bridge, claim) + END, ""]))


def hang_up(pid_file: Path) -> bool:
    """Have the broker read its files anew; False where it does not run: it will when it starts. Raises OSError."""
    try:
        pid = int(pid_file.read_text())
    except FileNotFoundError:
        return False
    except ValueError:
        pid = 0
    if pid <= 0:
        raise OSError(f"{pid_file} holds no process number")
    # A number that is not the broker's any more may be anybody's, whom the signal would end unless he waits for it.
    if _PROC.is_dir() and not _waits_for_hangup(pid):
        return False
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise OSError(f"may not signal the broker, process {pid}: run the bridge as the broker's user") from error
    return True


def _waits_for_hangup(pid: int) -> bool:
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGHUP - 1) & 1)
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise OSError(f"{path} is not text: {error}") from error


def _split(text: str) -> tuple[list[str], list[str]]:
    # Lines of others, and ours. Whatever follows our end was added by somebody's tool: it is kept, above.
    above: list[str] = []
    ours: list[str] = []
    where = above
    for line in text.splitlines():
        if line in (BEGIN, END):
            where = ours if line == BEGIN else above
        else:
            where.append(line)
    return above, ours


def _replace(path: Path, before: str, text: str) -> bool:
    if text == before:
        return False
    # A link (as to another volume) is followed: what it points to is replaced, beside itself.
    path = path.resolve()
    partial = path.with_name(path.name + ".boardlet")
    with suppress(FileNotFoundError):
        partial.unlink()
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        # Owner, group and mode as they were: who could read the file still can. A new one is its folder's group's.
        with suppress(PermissionError):
            there = path.stat() if path.exists() else None
            os.fchown(out.fileno(), there.st_uid if there else -1, (there or path.parent.stat()).st_gid)
        os.fchmod(out.fileno(), path.stat().st_mode & 0o777 if path.exists() else NEW_MODE)
        out.flush()
        os.fsync(out.fileno())
    partial.rename(path)
    return True
