"""The kinds as crds/ describes them: defaults and validation as the API server does them, and kubectl's columns.

The schema's own words decide, so that a file which is taken here is taken there. CEL rules have no evaluator in Python
that is worth its weight: `change` has those of a Board and those of a change, the core's compiler those of a model.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

GROUP: Final = "boardlet.dev"
OPEN: Final = "x-kubernetes-preserve-unknown-fields"
MAX_NAME: Final = 248  # Kubernetes has 253; with .status behind it a file bears it
MAX_NAMESPACE: Final = 63
MAX_SAID: Final = 5  # mistakes of one object; mending them shows the others
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_INSTALLED: Final = Path(__file__).parent / "crds"
_CHECKOUT: Final = Path(__file__).parents[3] / "crds"


@cache
def _checker() -> Any:
    # Imported when it is needed: with all that it may find installed it takes a second, which every command would pay.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def matches(validator: Any, pattern: str, value: object, schema: object) -> Iterator[ValidationError]:
        # Python's $ is there before a line's end too, and such an id would be two lines in the broker's files.
        if isinstance(value, str) and (value.endswith("\n") or not re.search(pattern, value)):
            yield ValidationError(f"does not match {pattern}")

    return extend(Draft202012Validator, {"pattern": matches})  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Column:
    """One of kubectl's columns; those of a higher priority than 0 are for -o wide."""

    name: str
    path: str
    type: str
    priority: int


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of this project."""

    title: str
    plural: str
    names: tuple[str, ...]
    api_version: str
    schema: Mapping[str, Any]
    columns: tuple[Column, ...]

    def mistakes(self, obj: Mapping[str, Any]) -> list[str]:
        """What the API server would refuse of a defaulted object, at most `MAX_SAID` of it."""
        said = {k: v for k, v in obj.items() if k not in ("metadata", "status")}
        if unknown := list(islice(_unknown(self.schema, said, ""), MAX_SAID)):
            return unknown
        checked = {key: value for key, value in obj.items() if key != "status"}
        errors = sorted(_checker()(self.schema).iter_errors(checked), key=lambda e: list(map(str, e.path)))
        return [_said(error) for error in errors[:MAX_SAID]]

    def defaulted(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """A copy with the schema's defaults in it."""
        made = copy.deepcopy(dict(obj))
        _default(self.schema, made)
        return made

    def valid_status(self, status: object) -> bool:
        """Whether a status that came with a file is one."""
        schema = self.schema["properties"]["status"]
        return isinstance(status, dict) and _checker()(schema).is_valid(status)


@cache
def kinds() -> Mapping[str, Kind]:
    """Board and BoardModel, by their name in `kind:`."""
    folder = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    made = {}
    for path in (folder / "boardmodels.yaml", folder / "boards.yaml"):
        crd = next(doc for doc in yaml.safe_load_all(path.read_text()) if doc["kind"] == "CustomResourceDefinition")
        spec, version = crd["spec"], crd["spec"]["versions"][0]
        names = spec["names"]
        made[names["kind"]] = Kind(
            names["kind"],
            names["plural"],
            (names["plural"], names["singular"], *names["shortNames"]),
            f"{GROUP}/{version['name']}",
            version["schema"]["openAPIV3Schema"],
            tuple(
                Column(c["name"].upper(), c["jsonPath"], c["type"], c.get("priority", 0))
                for c in version["additionalPrinterColumns"]
            ),
        )
    return made


def of_plural(plural: str) -> Kind:
    """The kind that is called so in a key."""
    return next(kind for kind in kinds().values() if kind.plural == plural)


def named(obj: Mapping[str, Any]) -> tuple[str, str] | str:
    """Namespace and name of an object, or what is wrong with its metadata."""
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
        return "metadata.name: must be there, and a string"
    name, namespace = meta["name"], meta.get("namespace") or "default"
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        return f"metadata.name: must be lower-case letters, digits, - and . (at most {MAX_NAME}), is {name!r:.80}"
    if not isinstance(namespace, str) or len(namespace) > MAX_NAMESPACE or not LABEL.fullmatch(namespace):
        return f"metadata.namespace: must be lower-case letters, digits and - (at most {MAX_NAMESPACE})"
    for field in ("labels", "annotations"):
        for key, value in (meta.get(field) or {}).items() if isinstance(meta.get(field) or {}, dict) else [("", 0)]:
            if not isinstance(value, str):
                return f"metadata.{field}.{key}: must be a string, is {value!r:.80}: put it in quotes"
    return namespace, name


def _unknown(schema: Mapping[str, Any], value: object, path: str) -> Iterator[str]:
    properties: Mapping[str, Any] = schema.get("properties") or {}
    if isinstance(value, list):
        for n, item in enumerate(value):
            yield from _unknown(schema.get("items") or {}, item, f"{path}[{n}]")
    elif isinstance(value, dict) and properties and not schema.get(OPEN):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            if key in properties:
                yield from _unknown(properties[key], inner, here)
            else:
                near = difflib.get_close_matches(key, properties, 1)
                yield f"{here}: there is no such field" + (f", did you mean {near[0]}?" if near else "")


def _default(schema: Mapping[str, Any], value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _default(schema.get("items") or {}, item)
    if not isinstance(value, dict):
        return
    for key, inner in (schema.get("properties") or {}).items():
        if value.get(key) is None and "default" in inner:
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            _default(inner, value[key])


def _said(error: ValidationError) -> str:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    want, value = error.validator_value, error.instance
    words = {
        "required": error.message,
        "type": f"must be of type {want}, is {value!r:.80}",
        "enum": f"must be one of {', '.join(map(str, want)) if isinstance(want, list) else want}, is {value!r:.80}",
        "pattern": f"must match {want}, is {value!r:.80}",
        "minimum": f"must be at least {want}, is {value}",
        "maximum": f"must be at most {want}, is {value}",
        "minLength": f"must have at least {want} characters",
        "maxLength": f"must have at most {want} characters",
        "minItems": f"must have at least {want} items",
        "maxItems": f"must have at most {want} items",
        "maxProperties": f"must have at most {want} entries",
    }
    return f"{path or 'the object'}: {words.get(str(error.validator), error.message)}"
