"""What is known: models compiled once, boards by key, which Board owns an id on the wire, and which of them are served.

Two objects that claim one id are an error of their users; the older one is served, so that a new mistake never takes a
running board away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from boardlet_wire.topic import bucket

from boardlet_bridge.core.board import new_board, recorded_key
from boardlet_bridge.core.credential import KeyRing
from boardlet_bridge.core.event import ModelSeen
from boardlet_bridge.core.model import Model, compile_model
from boardlet_bridge.core.state import Board, Desired, Limits
from boardlet_bridge.core.value import ModelError
from boardlet_bridge.runtime.leftover import Leftovers
from boardlet_bridge.runtime.pace import Edit
from boardlet_bridge.runtime.shard import BUCKETS

BOARDS: Final = "boards"
MODELS: Final = "boardmodels"
REWOUND: Final = "0"  # the resourceVersion of an object that has to be read anew; older than any other

Name = tuple[str, str]  # namespace, name


def name_of(obj: Mapping[str, Any]) -> Name:
    meta = obj["metadata"]
    return meta["namespace"], meta["name"]


@dataclass(slots=True)
class Entry:
    """One Board object as last seen, and the core's state of its board."""

    name: Name
    board: Board
    object: Mapping[str, Any]
    model_ref: Name
    sent: Mapping[str, Any] | None = None  # the status that was last written, to tell its echo from others' writes
    login: int = 0
    """Board.login as last looked at."""
    sworn: Desired | None = None
    """Board.desired as it was when the lease last held."""
    stale: bool = False
    """Whether the board's state lacks something: another replica has written a status, or an effect was withheld."""
    refused_at: dict[str, float] = field(default_factory=dict)
    """When a refusal was last logged, by cause."""
    mended_at: float = float("-inf")
    """When conditions that somebody else had written over were last put right at once."""
    edit: Edit | None = None
    """The edit that is under way to its board."""
    said: bytes = b""
    """What its board's session topic said last."""

    bucket: str = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = bucket(self.board.keys.board_id)

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    @property
    def age(self) -> tuple[str, bool, str]:
        """Orders claims, the oldest first; of one second the one that has been served, as only a bridge can say."""
        created = str(self.object["metadata"].get("creationTimestamp") or "")
        return created, not (self.object.get("status") or {}).get("desired"), self.uid


@dataclass(slots=True)
class Models:
    """BoardModels as last seen, compiled or with the reason why not."""

    objects: dict[Name, Mapping[str, Any]] = field(default_factory=dict)
    compiled: dict[Name, Model | ModelError] = field(default_factory=dict)

    def put(self, obj: Mapping[str, Any]) -> bool:
        """Compile a model; whether what its boards are asked can have changed."""
        name = name_of(obj)
        before, known = self.compiled.get(name), name in self.objects
        same_spec = known and self.objects[name].get("spec") == obj.get("spec")
        self.objects[name] = obj
        if same_spec:
            return False
        try:
            self.compiled[name] = compile_model(name[1], obj.get("spec") or {})
        except ModelError as error:
            self.compiled[name] = error
        return self.compiled[name] != before

    def drop(self, name: Name) -> None:
        self.objects.pop(name, None)
        self.compiled.pop(name, None)

    def seen(self, name: Name) -> ModelSeen:
        """What a board that refers to this model is told."""
        found = self.compiled.get(name)
        if found is None:
            message = f"there is no BoardModel {name[1]} in namespace {name[0]}: create it, or mend spec.modelRef"
            return ModelSeen(None, "ModelNotFound", message)
        if isinstance(found, ModelError):
            return ModelSeen(None, "ModelInvalid", f"BoardModel {name[1]}: {found}")
        return ModelSeen(found)


@dataclass(slots=True)
class Claims:
    """Which entries claim which id; the oldest one is served."""

    by_id: dict[str, list[Entry]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        claimants = self.by_id.setdefault(entry.board.keys.board_id, [])
        claimants.append(entry)
        claimants.sort(key=lambda e: e.age)

    def drop(self, entry: Entry) -> None:
        claimants = self.by_id.get(entry.board.keys.board_id, [])
        claimants[:] = [e for e in claimants if e is not entry]
        if not claimants:
            self.by_id.pop(entry.board.keys.board_id, None)

    def owner(self, board_id: str) -> Entry | None:
        claimants = self.by_id.get(board_id)
        return claimants[0] if claimants else None

    def rivals(self, board_id: str) -> Iterator[tuple[Entry, str]]:
        """Every claimant with the name of the one that is served instead of it, "" for the served one."""
        claimants = self.by_id.get(board_id, [])
        for entry in claimants:
            yield entry, "" if entry is claimants[0] else "/".join(claimants[0].name)

    def proven_key(self, board_id: str) -> int:
        """The highest key number that a board of this id has spoken under, to this replica or by a status; or 0."""
        proven = 0
        for entry in self.by_id.get(board_id, ()):
            proven = max(proven, entry.board.proven_key, recorded_key(entry.object))
        return proven

    def claimed(self, board_id: str, but: Name) -> bool:
        """Whether a Board but the one of this name has this id."""
        return any(entry.name != but for entry in self.by_id.get(board_id, ()))


@dataclass(slots=True)
class Registry:
    """What one bridge knows; it is the same for all who use it, and nobody else keeps any of it."""

    ring: KeyRing
    limits: Limits
    entries: dict[Name, Entry] = field(default_factory=dict)
    models: Models = field(default_factory=Models)
    claims: Claims = field(default_factory=Claims)
    held: set[str] = field(default_factory=lambda: set(BUCKETS))
    """The buckets whose boards are served."""
    read: set[str] = field(default_factory=set)
    """Those of which everything that the broker retains has been read."""
    leftovers: Leftovers = field(default_factory=Leftovers)

    def new_board(self, board_id: str, obj: Mapping[str, Any]) -> Board:
        """A board of which nothing is known but its object."""
        return new_board(board_id, self.ring, self.limits, obj)

    def within(self, buckets: Collection[str]) -> list[Entry]:
        """The Boards whose ids are in these buckets, in the order they were met."""
        return [entry for entry in self.entries.values() if entry.bucket in buckets]
