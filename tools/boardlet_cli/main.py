"""`boardlet`. Exit codes: 0 all was well, 1 a step failed, 2 wrong usage, 3 this machine lacks something."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from provision.golang import BuildFailed
from provision.missing import Missing
from provision.process import Died, NotReady

from boardlet_cli.cluster import KubectlFailed, of_user
from boardlet_cli.device import DeviceError
from boardlet_cli.flash import FlashFailed, Order, broker_password
from boardlet_cli.flashing import run as run_flash
from boardlet_cli.up import StepFailed
from boardlet_cli.up import up as run_up

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Boardlet: microcontrollers as Kubernetes objects.",
)


@app.callback()
def _several() -> None:
    """Boardlet: microcontrollers as Kubernetes objects."""


@app.command(epilog="Examples:  boardlet up    |    boardlet up --context kind-lab --namespace demo")
def up(
    context: Annotated[
        str | None, typer.Option(help="Context of your kubeconfig; without it a control plane is started here.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the demo's objects in that cluster.")] = "boardlet-demo",
    stay: Annotated[
        bool | None, typer.Option("--stay/--no-stay", help="Stay up after the story; default: on a terminal.")
    ] = None,
) -> None:
    """Start a site with three virtual boards, and tell its story with real kubectl commands."""
    run_up(context, namespace, stay)


@app.command(
    epilog="Examples:  boardlet flash /dev/ttyUSB0 --name greenhouse-7 --model greenhouse --broker 10.0.0.5 "
    "--root-key root.key --wifi site --wifi-password-file wifi.txt    |    boardlet flash PORT --name x --dry-run ..."
)
def flash(
    port: Annotated[str, typer.Argument(help="Serial port of a board that runs MicroPython, as /dev/ttyUSB0.")],
    name: Annotated[str, typer.Option(help="Name of the Board object; created if it is not there.")],
    broker: Annotated[str, typer.Option(help="The broker as the board reaches it: HOST or HOST:PORT.")],
    root_key: Annotated[Path, typer.Option(help="File with the site's root key, 64 hex digits.")],
    model: Annotated[str, typer.Option(help="BoardModel of a new Board object.")] = "greenhouse",
    namespace: Annotated[str | None, typer.Option(help="Namespace of the Board object.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of your kubeconfig; default: the current one.")] = None,
    board_id: Annotated[
        str | None, typer.Option(help="The board's id; default: the one it has, else a new one.")
    ] = None,
    wifi: Annotated[str | None, typer.Option(help="Name of the Wi-Fi network.")] = None,
    wifi_password_file: Annotated[Path | None, typer.Option(help="File with the Wi-Fi password.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    wait_s: Annotated[int, typer.Option(help="Seconds to wait until the Board is Ready.")] = 60,
) -> None:
    """Put the agent and an identity on a board, create its Board object, and wait until it is Ready."""
    password = wifi_password_file.read_text().strip() if wifi_password_file else ""
    host, _, number = broker.partition(":")
    order = Order(
        port, name, model, host, int(number or 1883), root_key, board_id, wifi=(wifi, password) if wifi else None
    )
    run_flash(order, of_user(context, namespace), dry_run, wait_s)


@app.command(epilog="Example:  boardlet password k7m2q9xa --root-key root.key")
def password(
    board_id: Annotated[str, typer.Argument(help="The board's id, which is its user name at the broker.")],
    root_key: Annotated[Path, typer.Option(help="File with the site's root key, 64 hex digits.")],
    key_number: Annotated[int, typer.Option(help="Number of the key that the board holds.")] = 1,
) -> None:
    """Print the password that a board shows the broker, for the broker's list of users."""
    print(broker_password(root_key, board_id, key_number))


def main() -> None:
    """Run a command; what this machine lacks, or what went wrong, is one message and an exit code."""
    try:
        app()
    except Missing as missing:
        print(f"boardlet: this machine lacks something: {missing}", file=sys.stderr)
        sys.exit(3)
    except (StepFailed, KubectlFailed, BuildFailed, Died, NotReady, DeviceError, FlashFailed) as error:
        print(f"boardlet: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
