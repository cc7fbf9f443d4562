"""`boardlet`. Exit codes: 0 all was well, 1 a step failed, 2 wrong usage, 3 this machine lacks something."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from provision.golang import BuildFailed
from provision.missing import Missing
from provision.process import Died, NotReady

from boardlet_cli.cluster import KubectlFailed
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


def main() -> None:
    """Run a command; what this machine lacks, or what went wrong, is one message and an exit code."""
    try:
        app()
    except Missing as missing:
        print(f"boardlet: this machine lacks something: {missing}", file=sys.stderr)
        sys.exit(3)
    except (StepFailed, KubectlFailed, BuildFailed, Died, NotReady) as error:
        print(f"boardlet: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
