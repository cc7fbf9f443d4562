"""`boardlet flash`: from whatever is plugged in to a Board that is Ready.

Look, check everything that could stop it later, show the plan, and only then change something: image, agent,
configuration, object, reset. Every step finds out what is there already, so that a flash which was interrupted anywhere
is finished by running the same command again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

from chips import ChipError, ports
from chips.image import ImageFile

from boardlet_cli import asking, firmware, flash, romfs
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.device import Device
from boardlet_cli.firmware import Seen
from boardlet_cli.identity import Identity, identify, register
from boardlet_cli.order import NeverReady, Order
from boardlet_cli.report import Report
from boardlet_cli.session import OF_BEFORE, is_ready_since, readiness, session

NO_WORD: Final = ("Asking", "NeverSeen", "Gone", "Silent")  # reasons of a board that the bridge does not hear


def run(order: Order, cluster: Cluster, dry_run: bool, wait_s: int, report: Report) -> None:
    """Flash one board; raises FlashFailed, ChipError, DeviceError or KubectlFailed with the cause and the next step."""
    with ExitStack() as stack:
        port = ports.choose(order.port, dfu=True)
        device = firmware.prompt(stack, port)
        seen = firmware.look(port, device)
        held = flash.configuration(device) if device else {}
        identity = identify(order, held, cluster)
        left = False
        needs_image = seen.info is None or bool(order.image) or order.erase
        if needs_image and seen.kind is None and device is not None and not dry_run:
            seen, device = firmware.enter_bootloader(seen, device, stack), None
            left = True
        try:
            image = firmware.choose(seen, order.image, order.erase, report)
        except ChipError:
            if left:
                firmware.let_run(seen)
            raise
        plan = flash.plan(order, device, identity) if device and not needs_image else None
        facts = _facts(order, cluster, seen, identity, image, plan)
        report.plan(facts, _lines(order, facts, seen, identity, image, plan))
        if dry_run:
            report.done(facts, "dry run: nothing was changed")
            return
        if image is not None:
            if device is not None:
                seen = firmware.enter_bootloader(seen, device, stack)
                if seen.kind is not None:  # what the chip says counts, not what its MicroPython said
                    image.check(seen.kind)
            device = firmware.install(seen, image, order.erase, stack, report)
            plan = flash.plan(order, device, identity)
        assert device is not None
        assert plan is not None
        before = _finish(order, plan, device, cluster, report)
    if order.claim:
        name = asking.wait(identity, device.port, cluster, wait_s, report)
        report.done({**facts, "port": device.port, "enrollment": name}, asking.next_step(identity, cluster))
        return
    _wait(order, plan.board_id, device.port, cluster, before, wait_s, report)
    where = f" -n {cluster.namespace}" if cluster.namespace else ""
    report.done({**facts, "port": device.port}, f"Ready. Go on with: kubectl{where} edit board {order.name}")


def _finish(order: Order, plan: flash.Plan, device: Device, cluster: Cluster, report: Report) -> str:
    # The session that the board's object is of until now.
    rom = plan.way.rom
    total = sum(map(len, plan.write.values())) + (len(rom.image) if rom and not rom.right else 0)
    if rom and not rom.right:
        report.step(f"writing the agent into ROMFS, and {len(plan.write)} files beside it")
    elif plan.write:
        report.step(f"writing {len(plan.write)} files of the agent")
    done: dict[str, int] = {}

    def told(path: str, written: int) -> None:
        done[path] = written
        report.progress(sum(done.values()) / total)

    flash.write(plan, device, told)
    if plan.write:
        report.step(
            f"wrote {total} bytes, {'ROMFS and ' if rom and not rom.right else ''}each file checked by its SHA-256"
        )
    before = ""
    if order.claim:
        device.forget_identity()  # a copy of a former one, outside the file system
    else:
        created = register(order, plan.board_id, cluster)
        report.step(f"Board {order.name}: {'created' if created else 'is there already'}")
        before = "" if created else session(cluster.get("board", order.name))
    device.reset()
    return before


def _wait(order: Order, board_id: str, port: str, cluster: Cluster, before: str, wait_s: int, report: Report) -> None:
    report.step(f"reset; waiting up to {wait_s} s until the Board is Ready")
    try:
        cluster.until("board", order.name, lambda board: is_ready_since(board, before), wait_s)
    except KubectlFailed as error:
        why = _why(order, board_id, port, cluster)
        raise NeverReady(f"the board is flashed, but its object is not Ready: {why}") from error


def _why(order: Order, board_id: str, port: str, cluster: Cluster) -> str:
    ready = readiness(cluster.get("board", order.name))
    told = f"{ready['reason']}: {ready['message']}"
    if ready["status"] == "True":
        told = OF_BEFORE
    if ready["status"] == "True" or ready["reason"] in NO_WORD:
        told += (
            f"\ndoes the broker know the user {board_id} (boardlet password {board_id} --root-key …), "
            f"and is the board on its network? Its console tells: mpremote connect {port}"
        )
    return told


def _facts(
    order: Order, cluster: Cluster, seen: Seen, identity: Identity, image: ImageFile | None, plan: flash.Plan | None
) -> Mapping[str, Any]:
    kind = seen.kind
    context, server = cluster.whereabouts()
    return {
        "port": seen.port.path,
        "chip": kind.chip if kind else None,
        "kind": kind.key if kind else None,
        "micropython": list(seen.info.version) if seen.info else None,
        "board": order.name or None,
        "boardID": identity.board_id or None,
        "fingerprint": asking.fingerprint(identity.secret) if order.claim else None,
        "creates": identity.creates,
        "model": identity.model or None,
        "namespace": cluster.namespace,
        "context": context or None,
        "cluster": server or None,
        "broker": f"{order.broker_host}:{order.broker_port}",
        "tls": order.tls is not None,
        "wifi": order.wifi[0] if order.wifi else None,
        "erase": order.erase,
        "image": image and {"name": image.name, "sha256": image.sha256, "bytes": len(image.content)},
        "offset": kind.offset if image and kind else None,
        "files": plan and {"write": sorted(plan.write), "kept": plan.kept, "remove": list(plan.remove)},
        "frozenAgent": plan.frozen if plan else None,
        "romfs": plan and plan.way.rom and {"bytes": len(plan.way.rom.image), "write": not plan.way.rom.right},
        "way": plan.way.why if plan else None,
    }


def _lines(
    order: Order,
    facts: Mapping[str, Any],
    seen: Seen,
    identity: Identity,
    image: ImageFile | None,
    plan: flash.Plan | None,
) -> list[str]:
    lines = [f"{seen.port.path}: {seen.words}"]
    if image is not None and seen.kind is not None:
        version = f", MicroPython {'.'.join(map(str, image.version))}" if image.version else ""
        where = f" at {seen.kind.offset:#x}" if seen.kind.method == "esptool" else ""
        lines.append(f"image {image.name}{version}, {len(image.content)} bytes{where}")
        lines.append(f"      sha256 {image.sha256}")
    elif order.image or order.erase or seen.info is None:
        lines.append("image: chosen once the chip itself has been asked")
    if order.erase:
        lines.append("ERASES the whole flash before")
    if plan is None:
        lines.append("the agent's files, after that")
    elif plan.frozen:
        lines.append(f"the agent {plan.frozen} is frozen into its image; {len(plan.remove)} files of it to remove")
    else:
        size = sum(map(len, plan.write.values()))
        lines.append(_way(plan.way))
        lines.append(
            f"{len(plan.write)} files to write ({size} bytes), {plan.kept} are right, {len(plan.remove)} to remove"
        )
    lines += [f"cluster {facts['context']} ({facts['cluster']})"] if facts["cluster"] else []
    if order.claim:
        return [*lines, asking.line(order, identity)]
    object_ = f"Board {order.name} ({'new' if identity.creates else 'is there'}, model {identity.model})"
    where = f" in {facts['namespace']}" if facts["namespace"] else ""
    wifi = f"Wi-Fi {order.wifi[0]}, " if order.wifi else ""
    lines.append(f"id {identity.board_id}, {object_}{where}, {wifi}{order.broker}")
    return lines


def _way(way: romfs.Way) -> str:
    if way.rom is None:
        return f"the agent goes onto the flash in .mpy files: {way.why}"
    return f"the agent {'is in ROMFS, and right' if way.rom.right else 'goes into ROMFS'}: {way.why}"
