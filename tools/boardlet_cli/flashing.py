"""What a user sees of `boardlet flash`: the plan, bars while it is carried out, and how to go on."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from boardlet_cli import flash
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.device import Device
from boardlet_cli.flash import FlashFailed, Order, Plan


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
        said = cluster.run("get", "board", order.name, check=False).stdout
        raise FlashFailed(
            f"the board is flashed, but its object is not Ready: {error}\n{said}"
            f"see kubectl describe board {order.name}; does the broker know the user {plan.board_id}?"
        ) from error
    where = f" -n {cluster.namespace}" if cluster.namespace else ""
    console.print(f"Ready. Go on with: kubectl{where} edit board {order.name}")


def _show(console: Console, order: Order, plan: Plan) -> None:
    info = plan.info
    version = ".".join(map(str, info.version))
    console.print(
        f"{order.port}: {info.machine or info.platform}, MicroPython {version}, {info.free_bytes // 1024} KiB free"
    )
    size = sum(map(len, plan.write.values()))
    console.print(f"id {plan.board_id}, Board {order.name}, broker {order.broker_host}:{order.broker_port}")
    console.print(
        f"{len(plan.write)} files to write ({size} bytes), {plan.kept} are right, {len(plan.remove)} to remove"
    )


def _write(console: Console, plan: Plan, device: Device) -> None:
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
