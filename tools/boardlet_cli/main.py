"""`boardlet`. Exit codes: 0 all was well, 1 a step failed, 2 wrong usage, 3 this machine lacks something."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

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

MQTT: Final = 1883

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Boardlet: microcontrollers as Kubernetes objects.",
    epilog="Exit codes: 0 all was well, 1 a step failed, 2 wrong usage, 3 this machine lacks something.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"boardlet {metadata.version('boardlet')}")
        raise typer.Exit


@app.callback()
def _several(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Boardlet: microcontrollers as Kubernetes objects."""


@app.command(
    short_help="Run the demo: three virtual boards and their story.",
    epilog="Examples:\n\n\b\n  boardlet up\n  boardlet up --context kind-lab --namespace demo",
)
def up(
    context: Annotated[
        str | None, typer.Option(help="Context of your kubeconfig; without it a control plane is started here.")
    ] = None,
    namespace: Annotated[
        str, typer.Option(help="Namespace that is made for the demo in that cluster, and removed.")
    ] = "boardlet-demo",
    stay: Annotated[
        bool | None, typer.Option("--stay/--no-stay", help="Stay up after the story; default: on a terminal.")
    ] = None,
) -> None:
    """Start a site with three virtual boards, and tell its story with real kubectl commands."""
    run_up(context, namespace, stay)


@app.command(
    short_help="Make a Board of a microcontroller at a serial port.",
    epilog="Examples:\n\n\b\n"
    "  boardlet flash /dev/ttyUSB0 --name greenhouse-7 --broker 10.0.0.5 --root-key root.key --dry-run\n"
    "  boardlet flash /dev/ttyACM0 --name greenhouse-8 --broker 10.0.0.5 --root-key root.key \\\n"
    "      --wifi site --wifi-password-file wifi.txt",
)
def flash(
    port: Annotated[str, typer.Argument(help="Serial port of a board that runs MicroPython, as /dev/ttyUSB0.")],
    name: Annotated[str, typer.Option(help="Name of the Board object; created if it is not there.")],
    broker: Annotated[str, typer.Option(help="The broker as the board reaches it: HOST or HOST:PORT.")],
    root_key: Annotated[Path, typer.Option(help="File with the site's root key, 64 hex digits.")],
    model: Annotated[str, typer.Option(help="BoardModel of a new Board object.")] = "greenhouse",
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of the Board object; default: the context's.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of your kubeconfig; default: the current one.")] = None,
    board_id: Annotated[
        str | None, typer.Option(help="The board's id; default: the one it has, else a new one.")
    ] = None,
    wifi: Annotated[str | None, typer.Option(help="Name of the Wi-Fi network; default: the one it has.")] = None,
    wifi_password_file: Annotated[
        Path | None,
        typer.Option(help="File with the Wi-Fi password; an open network has none.", exists=True, dir_okay=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    wait_s: Annotated[int, typer.Option(help="Seconds to wait until the Board is Ready.", min=1)] = 60,
) -> None:
    """Put the agent and an identity on a board, create its Board object, and wait until it is Ready."""
    if wifi_password_file and not wifi:
        raise typer.BadParameter("is of no use without --wifi", param_hint="--wifi-password-file")
    password = wifi_password_file.read_text().strip() if wifi_password_file else ""
    host, number = _address(broker)
    order = Order(port, name, model, host, number, root_key, board_id, wifi=(wifi, password) if wifi else None)
    run_flash(order, of_user(context, namespace), dry_run, wait_s)


def _address(broker: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{broker}")
        host, number = parts.hostname, parts.port or MQTT
    except ValueError:
        host, number = None, 0
    if not host or parts.netloc != broker or "@" in broker or broker.endswith(":"):
        raise typer.BadParameter(f"{broker!r} is not HOST or HOST:PORT", param_hint="--broker")
    return host, number


@app.command(
    short_help="Print what a board shows the broker.",
    epilog="Example:\n\n\b\n  boardlet password k7m2q9xa --root-key root.key",
)
def password(
    board_id: Annotated[str, typer.Argument(help="The board's id, which is its user name at the broker.")],
    root_key: Annotated[Path, typer.Option(help="File with the site's root key, 64 hex digits.")],
    key_number: Annotated[
        int, typer.Option(help="Number of the key that the board holds.", min=0, max=2**31 - 1)
    ] = 1,
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
