"""Who may do what at the broker: mosquitto's password and access files, and the same rules for mochi-mqtt.

A board is its id: user name, client id and the level of its topics are one word, so one pattern serves all boards. The
forms of the files are the bridge's, which can keep them itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from boardlet_bridge.mqtt import credential

BRIDGE: Final = "boardlet-bridge"


def acl() -> str:
    """mosquitto's acl_file."""
    return credential.acl(BRIDGE)


def passwords(users: Mapping[str, str]) -> str:
    """mosquitto's password_file for these users and passwords."""
    return "".join(f"{user}:{credential.hashed(password)}\n" for user, password in users.items())


def keys(users: Mapping[str, str]) -> str:
    """mosquitto's psk_file for these users and passwords."""
    return "".join(f"{user}:{credential.shared_key(password)}\n" for user, password in users.items())


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.rename(path)
