"""What a user sees of `boardlet flash`: the plan, bars while it is carried out, and how to go on."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from boardlet_cli import flash
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.device import Device
from boardlet_cli.flash import FlashFailed, Order, Plan

NO_WORD: Final = ("Asking", "NeverSeen", "Gone", "Silent")  # reasons of a board that the bridge does not hear


def run(order: Order, cluster: Cluster, dry_run: bool, wait_s: int) -> None:
    """Flash one board; raises FlashFailed, DeviceError or KubectlFailed with the cause and the next step."""
    console = Console(highlight=False, soft_wrap=True)
    with Device(order.port) as device:
        plan = flash.plan(order, device, cluster)
        _show(console, order, plan)
        if dry_run:
            console.print("dry run: nothing was changed")
            return
        _write(console, plan, device)
        created = flash.register(order, plan.board_id, cluster)
        console.print(f"Board {order.name}: {'created' if created else 'is there already'}")
        device.reset()
    console.print(f"reset; waiting up to {wait_s} s until the Board is Ready")
    try:
        cluster.run(
            "wait", "--for=condition=Ready", f"board/{order.name}", f"--timeout={wait_s}s", timeout_s=wait_s + 10
        )
    except KubectlFailed as error:
        raise FlashFailed(f"the board is flashed, but its object is not Ready: {_why(order, plan, cluster)}") from error
    where = f" -n {cluster.namespace}" if cluster.namespace else ""
    console.print(f"Ready. Go on with: kubectl{where} edit board {order.name}")


def _show(console: Console, order: Order, plan: Plan) -> None:
    info = plan.info
    version = ".".join(map(str, info.version))
    console.print(
        f"{order.port}: {info.machine or info.platform}, MicroPython {version}, {info.free_bytes // 1024} KiB free"
    )
    size = sum(map(len, plan.write.values()))
    object_ = f"Board {order.name} ({f'new, model {order.model}' if plan.creates else 'is there'})"
    console.print(f"id {plan.board_id}, {object_}, broker {order.broker_host}:{order.broker_port}")
    console.print(
        f"{len(plan.write)} files to write ({size} bytes), {plan.kept} are right, {len(plan.remove)} to remove"
    )


def _why(order: Order, plan: Plan, cluster: Cluster) -> str:
    conditions = cluster.get("board", order.name).get("status", {}).get("conditions", [])
    ready = next((c for c in conditions if c["type"] == "Ready"), {"reason": "Pending", "message": "no bridge sees it"})
    told = f"{ready['reason']}: {ready['message']}"
    if ready["reason"] in NO_WORD:
        told += (
            f"\ndoes the broker know the user {plan.board_id} (boardlet password {plan.board_id} --root-key …), "
            f"and is the board on its network? Its console tells: mpremote connect {order.port}"
        )
    return told


def _write(console: Console, plan: Plan, device: Device) -> None:
    if not plan.write:
        flash.write(plan, device, lambda path, written: None)
        return
    total = sum(map(len, plan.write.values()))
    done: dict[str, int] = {}
    columns = (TextColumn("writing"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, disable=not sys.stdout.isatty(), transient=True) as bars:
        task = bars.add_task("write", total=total)

        def told(path: str, written: int) -> None:
            done[path] = written
            bars.update(task, completed=sum(done.values()))

        flash.write(plan, device, told)
    console.print(f"wrote {total} bytes, each file checked by its SHA-256")
