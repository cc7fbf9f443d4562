"""`boardlet images`: which images of MicroPython are known by name, and how more come to be."""

from __future__ import annotations

from typing import Annotated

import typer
from chips import images
from rich.console import Console
from rich.table import Table

from boardlet_cli.report import for_user

app = typer.Typer(no_args_is_help=True, help="Images of MicroPython that are known by name, pinned to their SHA-256.")


@app.command(
    "add",
    epilog="Examples:\n\n\b\n"
    "  boardlet images add https://micropython.org/resources/firmware/ESP32_GENERIC-20260401-v1.29.0.bin\n"
    "  boardlet images add ./own-build.uf2 --board rp2_pico_w",
)
def add(
    source: Annotated[str, typer.Argument(help="URL (http, https) or file.")],
    board: Annotated[
        str | None, typer.Option(help="Folder in firmware/boards that it is for; default: as its name or header says.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Take it only if this is its hash.")] = None,
) -> None:
    """Fetch an image once, check that it fits a kind of board, and pin it to the hash that it has now."""
    with for_user(False) as report:
        report.step(f"taking {source}")
        pin = images.add(source, board, sha256, lambda have, total: report.progress(have / total if total else 0.0))
        report.done({}, f"{pin.name} for {pin.board}, sha256 {pin.sha256}")


@app.command("list", epilog="Example:\n\n\b\n  boardlet images list")
def show() -> None:
    """Show every image that is known, and whether its file is here."""
    table = Table("name", "board", "sha256", "here")
    for pin in images.pins().values():
        table.add_row(pin.name, pin.board, pin.sha256, "yes" if pin.cached.is_file() else "no")
    console = Console()
    if not table.row_count:
        console.print(f"none yet: `boardlet images add URL-or-FILE` adds one to {images.own_table()}", soft_wrap=True)
    elif console.is_terminal:
        console.print(table)
    else:
        for pin in images.pins().values():
            print(pin.name, pin.board, pin.sha256, pin.cached if pin.cached.is_file() else "-")
