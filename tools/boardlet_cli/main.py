"""`boardlet`. Exit codes: 0 all was well, 1 a step failed, 2 wrong usage, 3 this machine lacks something."""

from __future__ import annotations

import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from chips import ChipError
from provision.golang import BuildFailed
from provision.missing import Missing
from provision.process import Died, NotReady

from boardlet_cli import (
    approve,
    backup,
    doctor,
    flash_command,
    images_command,
    info,
    objects_command,
    restore,
    set_command,
    site_command,
)
from boardlet_cli.cluster import KubectlFailed
from boardlet_cli.device import DeviceError
from boardlet_cli.flash import broker_password
from boardlet_cli.objects import ObjectError
from boardlet_cli.order import FlashFailed
from boardlet_cli.sitefile import SiteError, keys_of
from boardlet_cli.table import shown
from boardlet_cli.tls import TlsError
from boardlet_cli.up import StepFailed
from boardlet_cli.up import up as run_up

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


app.command("flash", short_help=flash_command.SHORT, epilog=flash_command.EXAMPLES)(flash_command.flash)
app.command(
    "info",
    short_help="What is on this board, is it well, and is it its object's?",
    epilog="Example:\n\n\b\n  boardlet info /dev/ttyUSB0",
)(info.info)
app.command(
    "doctor",
    short_help="Look at everything that flashing needs, and say what to mend.",
    epilog="Example:\n\n\b\n  boardlet doctor\n\nThe exit code is the number of problems.",
)(doctor.doctor)
app.command("approve", short_help=approve.SHORT, epilog=approve.EXAMPLES)(approve.approve)
_FOLDER = "--store dir:site/objects"
app.command(
    "get",
    short_help="Show the objects of a site's folder, as kubectl get.",
    epilog=f"Examples:\n\n\b\n  boardlet get boards {_FOLDER}\n  boardlet get board greenhouse-1 -o yaml {_FOLDER}\n"
    f"  BOARDLET_STORE=dir:site/objects boardlet get boards,boardmodels -A --json\n\n{objects_command.CODES}",
)(objects_command.get)
app.command(
    "describe",
    short_help="Show all that is known of objects of a site's folder.",
    epilog=f"Example:\n\n\b\n  boardlet describe board greenhouse-1 {_FOLDER}\n\n{objects_command.CODES}",
)(objects_command.describe)
app.command(
    "set",
    short_help="Set properties of a Board in a site's folder.",
    epilog=f"Examples:\n\n\b\n  boardlet set board/greenhouse-1 led=true {_FOLDER}\n"
    f"  boardlet set board/greenhouse-1 led=false --wait 10 {_FOLDER}\n\n{objects_command.CODES}",
)(set_command.set_)
app.command(
    "watch",
    short_help="Show the objects of a site's folder whenever they change.",
    epilog=f"Example:\n\n\b\n  boardlet watch boards {_FOLDER}\n\n{objects_command.CODES} 130 after Ctrl-C.",
)(objects_command.watch)
app.add_typer(images_command.app, name="images")
app.add_typer(site_command.app, name="site")
app.command(
    "backup",
    short_help="Read a board into a file.",
    epilog="Examples:\n\n\b\n  boardlet backup /dev/ttyUSB0\n  boardlet backup /dev/ttyUSB0 --chip -o whole.bin",
)(backup.backup)
app.command("restore", short_help=restore.SHORT, epilog=restore.EXAMPLES)(restore.restore)
app.command(
    "erase",
    short_help="Take agent and identity off a board, or erase it whole.",
    epilog="Examples:\n\n\b\n  boardlet erase /dev/ttyUSB0\n  boardlet erase /dev/ttyUSB0 --chip --yes",
)(backup.erase)


@app.command(
    short_help="Print what a board shows the broker.",
    epilog="Example:\n\n\b\n  boardlet password k7m2q9xa --root-key root.key",
)
def password(
    board_id: Annotated[str, typer.Argument(help="The board's id, which is its user name at the broker.")],
    root_key: Annotated[Path, typer.Option(help="File with the site's root key, 64 hex digits.")],
    key_number: Annotated[int, typer.Option(help="Number of the key that the board holds.", min=0, max=2**31 - 1)] = 1,
) -> None:
    """Print the password that a board shows the broker, for the broker's list of users."""
    print(broker_password(keys_of(root_key), board_id, key_number))


FAILURES = (
    *(StepFailed, KubectlFailed, BuildFailed, Died, NotReady),
    *(DeviceError, FlashFailed, ChipError, SiteError, TlsError, ObjectError),
)


def main() -> None:
    """Run a command; what this machine lacks, or what went wrong, is one message and an exit code."""
    # Whoever was started in a script's background is born deaf to Ctrl-C, and would then clean up after nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app()
    except Missing as missing:
        print(f"boardlet: this machine lacks something: {missing}", file=sys.stderr)
        sys.exit(3)
    except FAILURES as error:
        print(shown(f"boardlet: {error}"), file=sys.stderr)  # a board may have said it
        sys.exit(getattr(error, "code", 1))


if __name__ == "__main__":
    main()
