"""`boardlet info`: what is on this board, whether it is healthy, and whether it is the board of its object."""

from __future__ import annotations

import hmac
import json
from contextlib import ExitStack, suppress
from typing import Any, Final

import typer
from boardimage import image
from boardlet_bridge.core.root_key import RootKeyInvalid, RootKeys, serving
from boardlet_wire.keys import board_key
from chips import ports
from provision.missing import Missing

from boardlet_cli import asking, firmware, flash, romfs, sitefile
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.device import Device
from boardlet_cli.flash_command import of_site
from boardlet_cli.options import AsJson, Context, Namespace, PortArgument, RootKey, SiteOption
from boardlet_cli.session import OF_BEFORE, is_ready_since, readiness, session
from boardlet_cli.table import shown

LOW_HEAP_BYTES: Final = 16 * 1024  # what the agent needs once it is connected
LOOK_S: Final = 20  # for the cluster to say which object it is, while the board is interrupted
BACK_S: Final = 30  # a board that was reset: two seconds of grace, Wi-Fi, broker
FAILED_BOOTS: Final = 4  # in a row, then safe mode


def info(
    port: PortArgument = None,
    site: SiteOption = None,
    root_key: RootKey = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Look at a board, let it run on, and look at its object; exit code 1 if something is not as it should be."""
    settings = sitefile.find(site)
    keys = sitefile.keys_of(root_key) if root_key else None
    problems: list[str] = []
    with ExitStack() as stack:
        place = ports.choose(port, dfu=True)
        device = firmware.prompt(stack, place)
        seen = firmware.look(place, device)
        facts: dict[str, Any] = {"port": place.path, "is": seen.words}
        held = _of_board(device, facts, problems) if device and seen.info else {}
        cluster = _cluster(settings, context, namespace, problems) if held else None
        # While it is interrupted still, so that what its object says afterwards can be told from what it said before.
        found = _objects(cluster, held, problems) if cluster and "claim" not in held else None
    if not held and seen.info is None:
        problems.append(f"it has no MicroPython that can run the agent: boardlet flash {place.path} --name NAME")
    if cluster is not None and "claim" in held:
        _of_claim(cluster, str(held.get("secret", "")), facts, problems)
    elif cluster is not None:
        _of_key(held, keys or _site_keys(settings, cluster, problems), facts, problems)
        if found is not None:
            _of_object(cluster, found, facts, problems)
    if as_json:
        print(json.dumps({**facts, "problems": problems}))
    else:
        for name, value in facts.items():  # a board's words have no power over a terminal
            print(shown(f"{name:10} {value}"))
        for problem in problems:
            print(shown(f"✗ {problem}"))
        if not problems:
            print("it is well")
    if problems:
        raise typer.Exit(1)


def _cluster(
    settings: sitefile.SiteFile | None, context: str | None, namespace: str | None, problems: list[str]
) -> Cluster | None:
    try:
        return of_site(settings, context, namespace)
    except Missing as missing:  # what the board itself says is worth telling all the same
        problems.append(f"its object cannot be looked at: {missing}")
        return None


def _of_board(device: Device, facts: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    again = f"boardlet flash {device.port} --name NAME"
    held = flash.configuration(device)
    health = device.health()
    frozen = device.frozen_agent()
    agent = image(tls="tls" in held)
    in_rom = romfs.runs(device)
    files = romfs.beside(agent) if in_rom and not frozen else agent
    wrong = [p for p, content in files.items() if device.sha256(p) != flash.sha256(content)]
    facts["heap"] = f"{health['heap']} bytes free"
    facts["agent"] = f"{frozen} in its image" if frozen else f"{len(files) - len(wrong)} of {len(files)} files"
    if in_rom and not frozen:
        right = romfs.is_right(device, agent)
        facts["agent"] = f"{flash.VERSION} in its ROMFS" if right else "another one in its ROMFS"
        if not right:
            problems.append(f"the agent in its ROMFS is not that of this version: {again}")
    facts["id"] = held.get("id")
    by = " by TLS" if "tls" in held else ""
    wifi = held.get("wifi")
    network = wifi[0] if isinstance(wifi, list) and wifi else "none"
    facts["broker"] = f"{held.get('host')}:{held.get('port')}{by}, Wi-Fi {network}"
    if frozen != flash.VERSION and wrong:
        problems.append(f"{len(wrong)} files of the agent are not those of this version, as {wrong[0]}: {again}")
    if health["heap"] < LOW_HEAP_BYTES:
        problems.append(f"only {health['heap']} bytes of heap are free: freeze the agent into the image")
    if not held:
        problems.append(f"it has no identity: {again}")
    boot = health.get("boot")
    if isinstance(boot, list) and len(boot) > 1 and all(type(part) is int for part in boot):
        facts["boots"] = f"{boot[0]}, {boot[1]} in a row that did not last"
        if boot[1] >= FAILED_BOOTS:
            problems.append(f"{boot[1]} boots in a row failed, so that it starts in safe mode: see its last crash")
    if health.get("crash"):
        facts["crash"] = str(health["crash"]).strip().splitlines()[-1]
    return held


def _of_claim(cluster: Cluster, secret: str, facts: dict[str, Any], problems: list[str]) -> None:
    # It makes its secret at its first start, where nobody gave it one.
    facts["identity"] = "none yet: it asks to come in with its site's claim"
    if not secret:
        return
    facts["fingerprint"] = asking.fingerprint(secret)
    try:
        facts["enrollment"] = asking.state(cluster, secret)
    except KubectlFailed as error:
        problems.append(f"its Enrollment cannot be looked at: {error}")


def _site_keys(settings: sitefile.SiteFile | None, cluster: Cluster, problems: list[str]) -> RootKeys | None:
    try:
        return settings.root_keys(cluster) if settings else None
    except sitefile.SiteError as error:
        problems.append(str(error))
        return None


def _of_key(held: dict[str, Any], keys: RootKeys | None, facts: dict[str, Any], problems: list[str]) -> None:
    if keys is None:
        return
    facts["key"] = f"number {held.get('key_number')}"
    try:
        number = int(held.get("key_number", 1))
        right = board_key(serving(keys, number).key, str(held.get("id")), number).hex()
    except RootKeyInvalid as error:
        problems.append(f"{error}, and flash it")
        return
    except (ValueError, TypeError, OverflowError):
        problems.append(f"its key has no number: boardlet flash {facts['port']} --name NAME")
        return
    if not hmac.compare_digest(right.encode(), str(held.get("key")).encode()):
        problems.append("its key is not of this site's root key: flash it again with the right one")


def _objects(cluster: Cluster, held: dict[str, Any], problems: list[str]) -> list[dict[str, Any]] | None:
    # The Boards of its id, None where that cannot be said.
    selector = f"--field-selector=spec.boardID={held.get('id')}"
    try:
        said = cluster.run("get", "boards", "-o", "json", selector, timeout_s=LOOK_S).stdout
    except KubectlFailed as error:
        problems.append(f"its object cannot be looked at: {error}")
        return None
    found: list[dict[str, Any]] = json.loads(said)["items"]
    return found


def _of_object(cluster: Cluster, found: list[dict[str, Any]], facts: dict[str, Any], problems: list[str]) -> None:
    if not found:
        where = f"namespace {cluster.namespace}" if cluster.namespace else "the context's namespace"
        problems.append(
            f"no Board in {where} has the id {facts['id']}: name another with --namespace, or `boardlet flash "
            f"{facts['port']} --name NAME` creates it"
        )
    for name, before in [(board["metadata"]["name"], session(board)) for board in found]:
        # It was interrupted for the look, and comes back.
        with suppress(KubectlFailed):
            cluster.until("board", name, lambda board, before=before: is_ready_since(board, before), BACK_S)  # type: ignore[misc]
        board = cluster.get("board", name)
        ready = readiness(board)
        facts["object"] = f"Board {name}, Ready {ready['status']} ({ready['reason']})"
        if ready["status"] != "True":
            problems.append(f"Board {name} is {ready['reason']}: {ready['message']}")
        elif not is_ready_since(board, before):
            problems.append(f"Board {name} is Ready, but {OF_BEFORE}: is it on its network, or is another its board?")
