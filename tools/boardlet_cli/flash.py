"""The files of a board that runs MicroPython: the agent, and a configuration that makes it the board of an identity.

The order is such that a failure leaves something that works: new files before old ones go (MicroPython takes an old .py
before the .mpy beside it), main.py after what it needs, configuration last. A board that
has an identity keeps it, and its Wi-Fi where no other is named. An agent that is frozen into the image needs no files;
one in ROMFS is written and verified before the files go that would hide it, and main.py is away while what it would
start is half there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from boardimage import Image, image
from boardimage.agent import FIRMWARE, FOLDERS, MAIN
from boardimage.authority import CA
from boardlet_bridge.core.root_key import RootKeyInvalid, RootKeys, serving
from boardlet_wire import seal
from boardlet_wire.keys import board_key, claim_key

from boardlet_cli import romfs
from boardlet_cli.device import PARTIAL, Device, Info
from boardlet_cli.identity import Identity, checked_id
from boardlet_cli.order import FlashFailed, Order

CONFIG: Final = "config.json"
ROMFS: Final = "ROMFS"  # in place of a path
CLAIM_FOLDER: Final = "enrol"  # never frozen: a board has it until it has an identity
SPARE_BYTES: Final = 16 * 1024  # for what the agent keeps: model, desired, crash, two copies each
VERSION: Final = re.findall(r'__version__ = "(.+)"', (FIRMWARE / "boardlet/__init__.py").read_text())[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done to the files of which board."""

    info: Info
    board_id: str
    write: Image
    kept: int
    remove: tuple[str, ...]
    config: bytes = field(repr=False)
    config_changes: bool
    frozen: str | None
    """The version of the agent in its image, if that is the one that it will run."""
    way: romfs.Way
    """Whether the agent goes into ROMFS, or in files onto the flash."""
    stops: bool
    """main.py goes before anything else does, because what it would start meanwhile is half there."""


def plan(order: Order, device: Device, identity: Identity) -> Plan:
    """Compare the board's files with what they should be, and change nothing; raises FlashFailed or DeviceError."""
    info = device.info()
    frozen = device.frozen_agent()
    frozen = frozen if frozen == VERSION else None
    agent = image(frozen=bool(frozen), claim=bool(order.claim), tls=bool(order.tls))
    way = _way(order, device, agent, frozen)
    wanted = {**(romfs.beside(agent) if way.rom else agent), **_authority(order, device)}
    write = {path: content for path, content in wanted.items() if device.sha256(path) != sha256(content)}
    stale = tuple(
        f"{folder}/{name}"
        for folder in (*FOLDERS, CLAIM_FOLDER)
        for name in device.files(folder)
        if name.endswith((".py", ".mpy", PARTIAL)) and f"{folder}/{name}" not in wanted
    )
    changes = bool(stale) or not way.rom.right if way.rom else any(path != MAIN for path in write)
    stops = not frozen and changes and romfs.stops(device, way)
    if stops or (way.rom and changes):
        write[MAIN] = wanted[MAIN]
    if CA not in wanted and device.sha256(CA):
        stale = (*stale, CA)
    if frozen:
        _hidden_by(device, stale)
    needed = sum(map(len, write.values())) + SPARE_BYTES
    if needed > info.free_bytes:
        free, need = info.free_bytes // 1024, needed // 1024
        raise FlashFailed(f"{device.port} has {free} KiB free, {need} are needed: remove files from it with mpremote")
    wifi = list(order.wifi) if order.wifi else identity.existing.get("wifi")
    config = {
        **_own(order, identity),
        "host": order.broker_host,
        "port": order.broker_port,
        **({"wifi": wifi} if wifi else {}),
        **({"tls": order.tls.config(identity.existing)} if order.tls else {}),
        **(order.extra or {}),
    }
    kept = len(wanted) - len(write)
    text, differs = json.dumps(config).encode(), config != configuration(device)
    return Plan(info, identity.board_id, write, kept, stale, text, differs, frozen, way, stops)


def _way(order: Order, device: Device, agent: Image, frozen: str | None) -> romfs.Way:
    if frozen:
        return romfs.Way(None, f"the agent {frozen} is frozen into its image")
    return romfs.choose(device, agent) if order.romfs else romfs.Way(None, "--no-romfs asks for that")


def _authority(order: Order, device: Device) -> dict[str, bytes]:
    if order.tls is None:
        return {}
    certificates, keys = device.tls()
    if order.tls.authority is None and not keys:
        raise FlashFailed(f"the MicroPython of {device.port} knows no shared keys: 1.29 does, or use --broker-ca")
    if order.tls.authority is not None and not certificates:
        raise FlashFailed(
            f"the MicroPython of {device.port} checks no certificates, as that of an ESP8266: leave --broker-ca out, "
            "or take another board"
        )
    return {CA: order.tls.trusted} if order.tls.trusted else {}


def _own(order: Order, identity: Identity) -> dict[str, object]:
    if order.claim:
        return {"claim": claim_key(order.root_keys[0].key, order.claim).hex(), "secret": identity.secret}
    root = serving(order.root_keys, identity.key_number)
    key = board_key(root.key, identity.board_id, identity.key_number)
    return {"id": identity.board_id, "key": key.hex(), "key_number": identity.key_number}


def write(what: Plan, device: Device, progress: Callable[[str, int], None]) -> None:
    """Carry out the plan's files; `progress` is told each file, or ROMFS, and how many of its bytes have gone."""
    if what.stops:
        device.remove(MAIN)
    if what.way.rom:
        _into_rom(what, what.way.rom, device, progress)
    after = () if what.way.rom else what.remove
    for path in after:
        if path.endswith(PARTIAL):
            device.remove(path)
    for path in sorted(what.write, key=lambda path: path == MAIN):
        content = what.write[path]
        device.put(path, content, lambda n, path=path: progress(path, n))  # type: ignore[misc]
        progress(path, len(content))
    for path in after:
        device.remove(path)
    if what.frozen:
        for folder in FOLDERS:
            device.remove_folder(folder)
    if what.config_changes:
        device.put(CONFIG, what.config)


def _into_rom(what: Plan, rom: romfs.Rom, device: Device, progress: Callable[[str, int], None]) -> None:
    if not rom.right:
        device.deploy(rom.image, lambda n: progress(ROMFS, n))
        progress(ROMFS, len(rom.image))
    if not device.rom_found(FOLDERS[0]):
        raise FlashFailed(
            f"the MicroPython of {device.port} does not start with its ROMFS mounted and searched: does its boot.py "
            "unmount it? Flash again, or do without it by --no-romfs"
        )
    if MAIN in what.write:
        device.remove(MAIN)
    for path in what.remove:
        device.remove(path)
    for folder in FOLDERS:
        device.remove_folder(folder)


def broker_password(root_keys: RootKeys, board_id: str, key_number: int) -> str:
    """What a board with this id shows the broker: 32 hex digits (PROTOCOL.md section 4). Raises FlashFailed."""
    checked_id("the command line", board_id)
    try:
        key = board_key(serving(root_keys, key_number).key, board_id, key_number)
    except RootKeyInvalid as error:
        raise FlashFailed(str(error)) from error
    return seal.half_key(key, seal.PASSWORD).hex()[:32]


def configuration(device: Device) -> dict[str, Any]:
    """What the board holds of an earlier flash; raises FlashFailed if that is damaged."""
    text = device.read(CONFIG)
    try:
        existing = json.loads(text or b"{}")
    except ValueError:
        existing = None
    if not isinstance(existing, dict):
        raise FlashFailed(
            f"{CONFIG} of the board at {device.port} is damaged, and with it the id: `mpremote connect {device.port} "
            f"fs rm :{CONFIG}`, then flash again with --board-id if you know it"
        )
    return existing


def _hidden_by(device: Device, stale: tuple[str, ...]) -> None:
    # A folder of the same name is found before what is frozen, be it empty.
    for folder in FOLDERS:
        for name in device.files(folder):
            if f"{folder}/{name}" not in stale:
                raise FlashFailed(
                    f"{folder}/{name} hides the agent that is in the image of {device.port}: put it into another folder"
                )


def sha256(content: bytes) -> str:
    """Of a file's content, as Device.sha256 says it."""
    return hashlib.sha256(content).hexdigest()
