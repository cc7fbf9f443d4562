"""`boardlet flash`: puts agent, identity and configuration on a board, makes its object, and waits until it is Ready.

The order is such that a failure leaves something that works: new files before old ones go (MicroPython takes an old .py
before the .mpy beside it), main.py after what it needs, configuration last, the object before the reset. A board that
has an identity keeps it, and its Wi-Fi where no other is named.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import socket
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from boardimage import Image, image
from boardimage.agent import MAIN
from boardlet_wire import seal

from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.device import PARTIAL, Device, Info

CONFIG: Final = "config.json"
FOLDERS: Final = ("boardlet", "boardlet_wire", "drivers", "umqtt")
SPARE_BYTES: Final = 16 * 1024  # for what the agent keeps: model, desired, crash, two copies each
ID_LENGTH: Final = 8
ID_FORM: Final = re.compile("[a-z0-9]{8,16}")  # as spec.boardID of a Board
ID_LETTERS: Final = string.ascii_lowercase + string.digits
BROKER_S: Final = 5.0


class FlashFailed(Exception):
    """The board could not be flashed; the message says the cause and the next step."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for."""

    port: str
    name: str
    model: str
    broker_host: str
    broker_port: int
    root_key_file: Path
    board_id: str | None = None
    key_number: int = 1
    wifi: tuple[str, str] | None = None
    extra: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done to which board."""

    info: Info
    board_id: str
    write: Image
    kept: int
    remove: tuple[str, ...]
    config: bytes
    config_changes: bool
    creates: bool
    """Whether there is no Board object yet."""


def plan(order: Order, device: Device, cluster: Cluster | None) -> Plan:
    """Look at everything and change nothing; raises FlashFailed or DeviceError."""
    root = _root_key(order.root_key_file)
    _broker_answers(order.broker_host, order.broker_port)
    info = device.info()
    existing = _existing(order, device)
    found = _reachable(cluster, order.name) if cluster else None
    board_id = _identity(order, existing, found)
    if cluster and not found:
        _may_be_created(order, board_id, cluster)
    wanted = image()
    write = {path: content for path, content in wanted.items() if device.sha256(path) != _sha256(content)}
    stale = tuple(
        f"{folder}/{name}"
        for folder in FOLDERS
        for name in device.files(folder)
        if name.endswith((".py", ".mpy", PARTIAL)) and f"{folder}/{name}" not in wanted
    )
    needed = sum(map(len, write.values())) + SPARE_BYTES
    if needed > info.free_bytes:
        free, need = info.free_bytes // 1024, needed // 1024
        raise FlashFailed(f"{order.port} has {free} KiB free, {need} are needed: remove files from it with mpremote")
    wifi = list(order.wifi) if order.wifi else existing.get("wifi")
    config = {
        "id": board_id,
        "key": seal.board_key(root, board_id, order.key_number).hex(),
        "key_number": order.key_number,
        "host": order.broker_host,
        "port": order.broker_port,
        **({"wifi": wifi} if wifi else {}),
        **(order.extra or {}),
    }
    text = json.dumps(config).encode()
    return Plan(info, board_id, write, len(wanted) - len(write), stale, text, config != existing, not found)


def write(what: Plan, device: Device, progress: Callable[[str, int], None]) -> None:
    """Carry out the plan's files; `progress` is told each file and how many of its bytes have gone."""
    for path in what.remove:
        if path.endswith(PARTIAL):
            device.remove(path)
    for path in sorted(what.write, key=lambda path: path == MAIN):
        content = what.write[path]
        device.put(path, content, lambda n, path=path: progress(path, n))  # type: ignore[misc]
        progress(path, len(content))
    for path in what.remove:
        device.remove(path)
    if what.config_changes:
        device.put(CONFIG, what.config)


def register(order: Order, board_id: str, cluster: Cluster) -> bool:
    """Create the Board object where there is none; whether it was created. Raises FlashFailed."""
    if _reachable(cluster, order.name):
        return False
    try:
        cluster.run("create", "-f", "-", stdin=_board(order, board_id))
    except KubectlFailed as error:
        raise FlashFailed(f"cannot create Board {order.name}: {error}") from error
    return True


def broker_password(root_key_file: Path, board_id: str, key_number: int) -> str:
    """What a board with this id shows the broker: 32 hex digits (PROTOCOL.md section 4). Raises FlashFailed."""
    _checked_id("the command line", board_id)
    key = seal.board_key(_root_key(root_key_file), board_id, key_number)
    return seal.half_key(key, seal.PASSWORD).hex()[:32]


def _existing(order: Order, device: Device) -> dict[str, Any]:
    text = device.read(CONFIG)
    try:
        existing = json.loads(text or b"{}")
    except ValueError:
        existing = None
    if not isinstance(existing, dict):
        raise FlashFailed(
            f"{CONFIG} of the board at {order.port} is damaged, and with it the id: `mpremote connect {order.port} "
            f"fs rm :{CONFIG}`, then flash again with --board-id if you know it"
        )
    return existing


def _identity(order: Order, existing: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    # One id must come out: that of the object, the board, the user, or a new one, where those that there are agree.
    claims = {"--board-id": order.board_id, f"the board at {order.port}": existing.get("id")}
    if found:
        claims[f"Board {order.name}"] = found["spec"]["boardID"]
    given = {who: board_id for who, board_id in claims.items() if board_id}
    for who, board_id in given.items():
        _checked_id(who, board_id)
    if len(set(given.values())) > 1:
        said = ", ".join(f"{who} says {board_id}" for who, board_id in given.items())
        raise FlashFailed(f"the ids differ: {said}. Name another Board, or remove {CONFIG} from the board")
    for board_id in given.values():
        return board_id
    return "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


def _checked_id(who: str, board_id: object) -> None:
    if not isinstance(board_id, str) or not ID_FORM.fullmatch(board_id):
        raise FlashFailed(f"{who} says the id is {board_id!r}: an id is 8 to 16 lower-case letters and digits")


def _reachable(cluster: Cluster, name: str) -> dict[str, Any] | None:
    try:
        return cluster.find("board", name)
    except KubectlFailed as error:
        hint = "is KUBECONFIG right, are the CRDs applied (kubectl apply -f crds/)?"
        raise FlashFailed(f"no cluster to register the board in: {error}; {hint}") from error


def _may_be_created(order: Order, board_id: str, cluster: Cluster) -> None:
    # Whatever would stop the object is told before the board is touched.
    own = json.loads(cluster.run("get", "boards", "-o", "json", f"--field-selector=spec.boardID={board_id}").stdout)
    for other in own["items"]:
        raise FlashFailed(
            f"the id {board_id} is that of Board {other['metadata']['name']}: say --name {other['metadata']['name']}, "
            "or delete it"
        )
    if cluster.find("boardmodel", order.model) is None:
        where = f"namespace {cluster.namespace}" if cluster.namespace else "the context's namespace"
        raise FlashFailed(f"there is no BoardModel {order.model} in {where}: apply it, or name another with --model")
    try:
        cluster.run("create", "--dry-run=server", "-f", "-", stdin=_board(order, board_id))
    except KubectlFailed as error:
        raise FlashFailed(f"Board {order.name} cannot be created: {error}") from error


def _board(order: Order, board_id: str) -> str:
    body = {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "Board",
        "metadata": {"name": order.name},
        "spec": {"boardID": board_id, "modelRef": {"name": order.model}},
    }
    return json.dumps(body)


def _root_key(path: Path) -> bytes:
    try:
        root = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise FlashFailed(f"cannot read the site's root key: {error}") from error
    if len(root) != 32:
        raise FlashFailed(f"{path}: must be 64 hex digits; `openssl rand -hex 32` makes a new site's key")
    return root


def _broker_answers(host: str, port: int) -> None:
    try:
        if not host:  # which would be this machine
            raise OSError("no host is named")
        socket.create_connection((host, port), BROKER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise FlashFailed(f"no broker at {host}:{port} ({error}): start it, or mend --broker") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
