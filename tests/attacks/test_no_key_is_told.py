"""Keys are in no place that others read: objects, events, logs, metrics, arguments, environments, topics, payloads."""

from __future__ import annotations

from pathlib import Path

from arena import Arena, patch, thief
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from boardlet_wire.topic import topic
from greenhouse import Greenhouse

KINDS = "boards,boardmodels,enrollments,events,configmaps,leases"


def secrets_of(arena: Arena, one: Greenhouse) -> dict[str, bytes]:
    """What nobody may read, by what it is."""
    found = {"root key": arena.site.root}
    for number in (1, 2):
        key = board_key(arena.site.root, one.board_id, number)
        found[f"key {number}"] = key
        halves = {"down": seal.DOWN, "up": seal.UP, "password": seal.PASSWORD}
        found |= {f"{name} {number}": seal.half_key(key, half)[:16] for name, half in halves.items()}
    return found


def processes() -> dict[str, bytes]:
    """Arguments of every process of this machine."""
    said = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            said[f"arguments of {folder.name}"] = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
    return said


def test_no_key_is_anywhere_that_others_read(arena: Arena, victim: Greenhouse) -> None:
    """After edits, forgeries that are told, a rotation over the air and a restart of the bridge, none is found."""
    site, bridge = arena.site, arena.site.bridge
    victim.synced(victim.edit(led=False))
    with thief(arena, victim.board_id) as client:
        client.publish(topic(victim.board_id, "r"), b"forged" * 4, qos=1).wait_for_publish(10)
    victim.until("MessagesRefused", "True", "WrongSeal")
    patch(victim, {"credential": {"keyNumber": 2, "rotation": "OverTheAir"}})
    victim.cluster.until(
        "board", victim.name, lambda board: (board.get("status") or {}).get("board", {}).get("keyNumber") == 2, 60
    )
    bridge.kill()
    bridge.start()
    victim.synced(victim.edit(led=True))

    heard = list(arena.liar.heard)
    places = {
        "objects": arena.cluster.run("get", KINDS, "-A", "-o", "json").stdout.encode(),
        "log of the bridge": bridge.process.log.read_bytes(),
        "log of the broker": site.broker.process.log.read_bytes(),
        "console of the board": victim.board.log.read_bytes(),
        "metrics": bridge.http("/metrics").encode(),
        "readiness": bridge.http("/readyz").encode(),
        "environment of the bridge": Path(f"/proc/{bridge.process.pid}/environ").read_bytes(),
        "topics": "\n".join(said.topic for said in heard).encode(),
        "payloads": b"\n".join(said.payload for said in heard),
        **processes(),
    }
    assert victim.board_id.encode() in places["objects"]
    assert victim.board_id.encode() in places["topics"]
    assert any("boardlet_bridge" in text for text in map(str, processes().values()))
    found = [
        (name, place)
        for name, secret in secrets_of(arena, victim).items()
        for place, text in places.items()
        if secret in text or secret.hex().encode() in text.lower()
    ]
    assert found == []
