"""Who may do what at the broker: mosquitto's password and access files, and the same rules for mochi-mqtt.

A board is its id: user name, client id and the level of its topics are one word, so one pattern serves all boards.
mosquitto stores PBKDF2-HMAC-SHA512 (`$7$iterations$salt$hash`, mosquitto_passwd(1)), which hashlib makes too.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

BRIDGE: Final = "boardlet-bridge"
BOARD_WRITES: Final = "srtawl"
BOARD_READS: Final = "dcfi"
# The board's own secret is 128 random bits: no dictionary helps against it, and a fleet's file is made in a second.
_ITERATIONS: Final = 101
_SALT_BYTES: Final = 12


def acl() -> str:
    """mosquitto's acl_file: a board its own topics by pattern, the bridge the letters that are the bridge's."""
    lines = ["# Patterns hold for every user; %u is the user name, which for a board is its id."]
    lines += [f"pattern write b/+/%u/{letter}" for letter in BOARD_WRITES]
    lines += [f"pattern read b/+/%u/{letter}" for letter in BOARD_READS]
    lines += ["", f"user {BRIDGE}", "topic read $SYS/#"]
    # It reads its own mailboxes back, and clears the session of a board that was deleted.
    lines += [f"topic read b/+/+/{letter}" for letter in BOARD_WRITES + "d"]
    lines += [f"topic write b/+/+/{letter}" for letter in BOARD_READS + "s"]
    return "\n".join(lines) + "\n"


def passwords(users: Mapping[str, str]) -> str:
    """mosquitto's password_file for these users and passwords."""
    return "".join(f"{user}:{_hashed(password)}\n" for user, password in users.items())


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.rename(path)


def _hashed(password: str) -> str:
    salt = os.urandom(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
