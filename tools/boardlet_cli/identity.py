"""Who a board is to be: one id that object, board and user agree on, and a Board object of that id in the cluster.

Whatever would stop the object is found out before the board is touched.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from boardlet_bridge.core.root_key import FIRST_KEY_NUMBER

from boardlet_cli import tls
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.order import FlashFailed, Order

ID_LENGTH: Final = 8
ID_FORM: Final = re.compile("[a-z0-9]{8,16}")  # as spec.boardID of a Board
ID_LETTERS: Final = string.ascii_lowercase + string.digits
SECRET_BYTES: Final = 32
SECRET_FORM: Final = re.compile(f"[0-9a-f]{{{2 * SECRET_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the board will be: found out before anything is changed."""

    board_id: str
    creates: bool
    """Whether there is no Board object yet."""
    existing: Mapping[str, Any] = field(repr=False)
    """Its configuration so far."""
    key_number: int = 1
    """Of the key that it is given."""
    model: str = ""
    """Of its Board: the one that the object has, else the one that it will be created with."""
    secret: str = field(default="", repr=False)
    """Of a board that gets a claim alone: what its fingerprint follows from."""


def identify(order: Order, existing: Mapping[str, Any], cluster: Cluster | None) -> Identity:
    """Check everything but the board's space, and change nothing; raises FlashFailed."""
    _broker_answers(order)
    if order.claim:
        return _unknown(existing)
    found = _reachable(cluster, order.name) if cluster else None
    board_id = _identity(order, existing, found)
    if cluster and not found:
        _may_be_created(order, board_id, cluster)
    number = key_number(order, found) if found else _first_number(order)
    return Identity(board_id, not found, existing, number, _model(order, found))


def _unknown(existing: Mapping[str, Any]) -> Identity:
    # One that is to ask. Flashed again it keeps its secret, and so its fingerprint.
    if "key" in existing:
        raise FlashFailed(
            f"this board is {existing.get('id')}, and would forget it: `boardlet erase` it first, or flash it without "
            "--claim"
        )
    kept = str(existing.get("secret"))
    secret = kept if SECRET_FORM.fullmatch(kept) else secrets.token_hex(SECRET_BYTES)
    return Identity("", False, existing, 0, secret=secret)


def _model(order: Order, found: Mapping[str, Any] | None) -> str:
    # Flashing changes no object: a Board keeps the model that it has.
    has = found["spec"]["modelRef"]["name"] if found else order.model
    if order.model_named and has != order.model:
        raise FlashFailed(
            f"Board {order.name} is a {has}, and --model says {order.model}: leave --model out, or set its "
            "spec.modelRef.name first"
        )
    return str(has)


def _first_number(order: Order) -> int:
    return order.key_number or order.root_keys[0].first


def key_number(order: Order, found: Mapping[str, Any]) -> int:
    """The number of the key that an existing Board is flashed with, as the bridge decides it; raises FlashFailed."""
    credential = found["spec"].get("credential") or {}
    wanted, revoked = int(credential.get("keyNumber", 1)), int(credential.get("revokedKeyNumber", 0))
    proven = int((found.get("status") or {}).get("board", {}).get("keyNumber", 0))
    # A number above the first that is not revoked it gets over the air, once it is there.
    floor = max(revoked, order.root_keys[-1].first - 1)
    for number in (proven, min(wanted, floor + 1)):
        if number > floor:
            return number
    if max(proven, wanted) > revoked:
        raise FlashFailed(
            f"the root key of Board {order.name}'s key has been removed: raise its spec.credential.keyNumber to "
            f"{order.root_keys[0].first} first"
        )
    raise FlashFailed(
        f"all keys of Board {order.name} are revoked: raise its spec.credential.keyNumber to {revoked + 1} first"
    )


def register(order: Order, board_id: str, cluster: Cluster) -> bool:
    """Create the Board object where there is none; whether it was created. Raises FlashFailed."""
    if _reachable(cluster, order.name):
        return False
    try:
        cluster.run("create", "-f", "-", stdin=_board(order, board_id))
    except KubectlFailed as error:
        raise FlashFailed(f"cannot create Board {order.name}: {error}") from error
    return True


def _identity(order: Order, existing: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    # One id must come out: that of the object, the board, the user, or a new one, where those that there are agree.
    claims = {"--board-id": order.board_id, "the board itself": existing.get("id")}
    if found:
        claims[f"Board {order.name}"] = found["spec"]["boardID"]
    given = {who: board_id for who, board_id in claims.items() if board_id}
    for who, board_id in given.items():
        checked_id(who, board_id)
    if len(set(given.values())) > 1:
        said = ", ".join(f"{who} says {board_id}" for who, board_id in given.items())
        raise FlashFailed(f"the ids differ: {said}. Name another Board, or remove config.json from the board")
    for board_id in given.values():
        return board_id
    return "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


def checked_id(who: str, board_id: object) -> None:
    """Raises FlashFailed for what is no id; `who` says it."""
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
    spec: dict[str, object] = {"boardID": board_id, "modelRef": {"name": order.model}}
    if (number := _first_number(order)) > FIRST_KEY_NUMBER:
        spec["credential"] = {"keyNumber": number, "revokedKeyNumber": number - 1}
    metadata = {"name": order.name}
    body = {"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": metadata, "spec": spec}
    return json.dumps(body)


def _broker_answers(order: Order) -> None:
    host, port = order.broker_host, order.broker_port
    try:
        if not host:  # which would be this machine
            raise OSError("no host is named")
        tls.connect(host, port, order.tls).close()
    except tls.TlsError as error:
        raise FlashFailed(str(error)) from error
    except (OSError, OverflowError, UnicodeError) as error:
        raise FlashFailed(f"no broker at {host}:{port} ({error}): start it, or mend --broker") from error
