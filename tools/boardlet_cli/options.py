"""Options that several commands have, with their words in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Context = Annotated[
    str | None, typer.Option(help="Context of your kubeconfig; default: the site file's, else the current one.")
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Namespace of the Board object; default: the site file's, else the context's."
    ),
]
SiteOption = Annotated[
    Path | None,
    typer.Option(
        "--site",
        help="Site file; default, where there is one: $BOARDLET_SITE, ./site.yaml, ~/.config/boardlet/site.yaml.",
    ),
]
RootKey = Annotated[
    Path | None, typer.Option(help="File with the site's root key, 64 hex digits; default: as the site file says.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text, for programs.")]
PortArgument = Annotated[
    str | None,
    typer.Argument(
        help="Serial port as /dev/ttyUSB0, or the folder of a UF2 boot volume; default: the only board that is there."
    ),
]
