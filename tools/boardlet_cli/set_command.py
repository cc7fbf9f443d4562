"""`boardlet set`: properties of a Board in a site's folder, edited in the file where somebody wrote them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from boardlet_bridge.core.model import Model, compile_model
from boardlet_bridge.core.value import ValueRefused
from boardlet_bridge.folder import file as files
from boardlet_bridge.folder.edit import EditRefused, set_properties
from boardlet_bridge.folder.view import Item, View, changes

from boardlet_cli import objects, table
from boardlet_cli.objects import Namespace, ObjectError, Store
from boardlet_cli.options import AsJson

TEXTS: Final = ("String", "Enum", "Bytes")


def set_(
    board: Annotated[str, typer.Argument(help="board/NAME")],
    values: Annotated[list[str], typer.Argument(help="NAME=VALUE of properties, as led=true target=21.5.")],
    store: Store = "",
    namespace: Namespace = "default",
    wait: Annotated[
        float | None, typer.Option(help="Return when the board runs it, or with exit code 1 after so many seconds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set properties of a Board, in the file where it stands; comments and order stay as they are."""
    asked = objects.asked([board])
    if len(asked) != 1 or asked[0][0].title != "Board" or len(asked[0][1]) != 1:
        raise typer.BadParameter("must be board/NAME", param_hint="BOARD")
    name = asked[0][1][0]
    root = objects.root(store)
    with _alone(root):
        view = objects.view(store)
        (item,) = objects.found(view, asked, namespace)
        if not item.file:
            raise ObjectError(f"board {name} stands in no file any more: its document was removed")
        wanted = _values(view, item, values)
        link = root / item.file
        path = link.resolve()
        try:
            text = set_properties(path.read_bytes().decode(), namespace, name, wanted, path.suffix == ".json")
        except EditRefused as error:
            raise ObjectError(f"{item.file}: {error}") from error
        _write(path, text, link)
    objects.say_state(view)
    generation = 0
    if wait is not None:
        generation = asyncio.run(_until_synced(root, ("boards", namespace, name), wanted, wait))
    if as_json:
        said = {"board": name, "namespace": namespace, "file": item.file, "properties": wanted}
        print(table.as_json(said | ({"observedGeneration": generation} if wait is not None else {})))
    else:
        words = " ".join(f"{key}={table.as_json(value)}" for key, value in wanted.items())
        print(f"board/{name} edited in {item.file}: {words}" + ("; the board runs it" if wait is not None else ""))


async def _until_synced(root: Path, key: tuple[str, str, str], wanted: Mapping[str, Any], wait: float) -> int:
    # The generation that the board runs, with these values in it.
    view = View(root)
    with contextlib.suppress(TimeoutError), objects.readable():
        async with asyncio.timeout(wait):
            async for _ in changes(root):
                view.look()
                if generation := _synced(view, key, wanted):
                    return generation
    obj = view.items[key].object if key in view.items else {}
    why = table.at(obj, '.status.conditions[?(@.type=="Synced")].message')
    state = "" if view.served else "; no bridge serves this folder"
    raise ObjectError(f"board/{key[2]} is edited, and does not run it after {wait:g} s: {why}{state}")


def _synced(view: View, key: tuple[str, str, str], wanted: Mapping[str, Any]) -> int:
    if key not in view.items:
        return 0
    obj = view.items[key].object
    generation = int(obj["metadata"]["generation"])
    synced = table.at(obj, '.status.conditions[?(@.type=="Synced")].status') == "True"
    confirmed = synced and table.at(obj, ".status.observedGeneration") == generation
    return generation if confirmed and wanted.items() <= (obj["spec"].get("properties") or {}).items() else 0


def _values(view: View, item: Item, values: Sequence[str]) -> dict[str, Any]:
    ref = item.object["spec"]["modelRef"]["name"]
    found = view.items.get(("boardmodels", item.key[1], ref))
    model = compile_model(ref, found.object["spec"]) if found else None
    wanted = {}
    for word in values:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"must be NAME=VALUE, is {word!r}", param_hint="VALUES")
        wanted[name] = _value(model, name, text)
    return wanted


def _value(model: Model | None, name: str, text: str) -> Any:
    prop = model.by_name.get(name) if model else None
    if model and prop is None:
        raise ObjectError(f"model {model.name} has no property {name!r}; it has {', '.join(model.by_name)}")
    if prop and prop.type.kind in TEXTS:
        value: Any = text
    else:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ObjectError(f"{name}: {text!r} is no value that YAML can say") from error
    if prop is None:
        return value
    if not prop.writable:
        raise ObjectError(f"{name}: must not be set, the model says that it is ReadOnly")
    try:
        prop.to_wire(value)
    except ValueRefused as error:
        raise ObjectError(f"{name}: {error} ({error.reason})") from error
    return value


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    # Two commands at once must not write over each other's edit.
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ObjectError(f"{root}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, text: str, link: Path) -> None:
    try:
        stat = path.stat()
        files.replace(path, text, stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid))
        if link.is_symlink():
            os.utime(link, follow_symlinks=False)  # of what lies outside of the folder the bridge gets no notice
    except OSError as error:
        raise ObjectError(f"{path}: {error.strerror}") from error
