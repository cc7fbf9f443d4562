"""What the commands on a site's folder share: how it and its objects are named, and what is said of both."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from boardlet_bridge.folder.kind import Kind, kinds
from boardlet_bridge.folder.view import Item, View

FOLDER: Final = "dir:"
Asked = Sequence[tuple[Kind, Sequence[str]]]

Store = Annotated[
    str,
    typer.Option(envvar="BOARDLET_STORE", help="dir:PATH, the folder of the objects; for a cluster use kubectl."),
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the objects.")]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Objects of all namespaces.")]
What = Annotated[list[str], typer.Argument(help="boards, boardmodels, or both with a comma; names; or KIND/NAME.")]


class ObjectError(Exception):
    """What was asked for is not there, or cannot be done; the message says what to do."""


def root(store: str) -> Path:
    """The folder that --store names."""
    if not store.startswith(FOLDER) or store == FOLDER:
        raise typer.BadParameter(
            "say dir:PATH, the folder of the site's objects (or set BOARDLET_STORE); for a cluster use kubectl",
            param_hint="--store",
        )
    return Path(store.removeprefix(FOLDER)).expanduser()


def view(store: str) -> View:
    """What is in it now; raises ObjectError."""
    with readable():
        return View(root(store))


@contextmanager
def readable() -> Iterator[None]:
    """A folder that cannot be read is an ObjectError."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise ObjectError(f"{error.filename or 'the folder'}: {error.strerror or error}") from error


def asked(what: Sequence[str]) -> Asked:
    """Kinds and names, as kubectl takes them: `board/a boardmodel/b`, or kinds with commas and then names."""
    if all("/" in word for word in what):
        return [(kind(word.partition("/")[0]), [word.partition("/")[2]]) for word in what]
    return [(kind(word), list(what[1:])) for word in what[0].split(",")]


def kind(word: str) -> Kind:
    """The kind that somebody means by one of its names."""
    for known in kinds().values():
        if word.lower() in known.names:
            return known
    those = ", ".join(known.plural for known in kinds().values())
    raise typer.BadParameter(f"there is no kind {word!r}; there are {those}", param_hint="KIND")


def found(seen: View, wanted: Asked, namespace: str | None, must: bool = True) -> list[Item]:
    """The objects that were asked for; raises ObjectError for a name that there is not, if they `must` be."""
    items = []
    for kind, names in wanted:
        here = [i for i in seen.items.values() if i.key[0] == kind.plural and namespace in (None, i.key[1])]
        for name in names:
            if must and not any(item.key[2] == name for item in here):
                raise ObjectError(f'{kind.plural} "{name}" not found in namespace {namespace or "any"}')
        items += [item for item in here if not names or item.key[2] in names]
    return items


def say_state(seen: View) -> None:
    """What a person must know beside the objects: nobody serves them, something is not taken."""
    if not seen.served:
        print("no bridge serves this folder: this is what was last known", file=sys.stderr)
    for problem in seen.problems:
        print(f"not taken: {problem}", file=sys.stderr)
