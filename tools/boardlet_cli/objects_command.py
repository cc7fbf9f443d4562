"""`boardlet get`, `describe` and `watch`: a site's folder of objects (docs/folder.md), as kubectl on a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import typer
from boardlet_bridge.folder.kind import of_plural
from boardlet_bridge.folder.view import Item, changes

from boardlet_cli import objects, table
from boardlet_cli.objects import Asked, Everywhere, Namespace, Store, What
from boardlet_cli.options import AsJson
from boardlet_cli.report import INTERRUPTED

CODES: Final = "Exit codes: 0 all was well, 1 it is not there, not taken or not in time, 2 wrong usage."

Output = Annotated[
    Literal["wide", "yaml", "json", "name", "apply"] | None,
    typer.Option("-o", "--output", help="Another form than a table; apply: YAML that kubectl apply takes."),
]


def get(
    what: What,
    store: Store = "",
    namespace: Namespace = "default",
    everywhere: Everywhere = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show objects and what their boards say: a table, or the whole objects."""
    view = objects.view(store)
    asked = objects.asked(what)
    found = objects.found(view, asked, None if everywhere else namespace)
    objects.say_state(view)
    if not found:
        print(f"No resources found in {'any' if everywhere else namespace} namespace.", file=sys.stderr)
    _print(asked, found, "lines" if as_json else output, everywhere)


def describe(what: What, store: Store = "", namespace: Namespace = "default") -> None:
    """Show objects with everything that is known of them: conditions, events, and what of their files is not taken."""
    view = objects.view(store)
    objects.say_state(view)
    shown = []
    for item in objects.found(view, objects.asked(what), namespace):
        about = f"{item.object['kind']} {item.key[1]}/{item.key[2]}"
        mine = [p for p in view.problems if p.object == about or (not p.object and p.file == item.file)]
        shown.append(table.described(item, mine))
    print("\n\n".join(shown))


def watch(
    what: What,
    store: Store = "",
    namespace: Namespace = "default",
    everywhere: Everywhere = False,
    output: Output = None,
    as_json: AsJson = False,
    seconds: Annotated[float | None, typer.Option("--for", help="End after so many seconds.")] = None,
) -> None:
    """Show objects, and each of them again whenever it changes, until Ctrl-C."""
    try:
        asyncio.run(_watch(store, what, None if everywhere else namespace, "lines" if as_json else output, seconds))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def _watch(store: str, what: list[str], namespace: str | None, output: str | None, seconds: float | None) -> None:
    asked, view, shown = objects.asked(what), objects.view(store), dict[Any, Any]()
    first = True
    with contextlib.suppress(TimeoutError), objects.readable():
        async with asyncio.timeout(seconds):
            async for _ in changes(objects.root(store)):
                view.look()
                if first:
                    objects.say_state(view)
                found = [i for i in objects.found(view, asked, namespace, first) if shown.get(i.key) != i.object]
                shown |= {item.key: item.object for item in found}
                _print(asked, found, output, namespace is None, heads=first)
                sys.stdout.flush()
                first = False


def _print(asked: Asked, found: Sequence[Item], output: str | None, wide: bool, heads: bool = True) -> None:
    if output == "lines":
        for item in found:
            print(table.as_json(item.object))
    elif output == "json":
        print(table.as_json({"apiVersion": "v1", "kind": "List", "items": [item.object for item in found]}))
    elif output in ("yaml", "apply"):
        if found:
            print(table.as_yaml([table.applicable(i.object) if output == "apply" else i.object for i in found]))
    elif output == "name":
        for item in found:
            print(f"{item.object['kind'].lower()}/{item.key[2]}")
    else:
        for kind in dict.fromkeys(kind.plural for kind, _ in asked):
            items = [item for item in found if item.key[0] == kind]
            if items:
                lines = table.aligned(table.rows(of_plural(kind), items, output == "wide", wide))
                print("\n".join(lines if heads else lines[1:]))
