"""A fleet of virtual boards that people edit and whose sensors move while faults happen, and its comparison in the end.

The comparison is of every property of every board, four times over: what the object asks for, what the board has on its
pins and in its program's hands, what the status reports, and what the broker keeps in the mailbox.
"""

from __future__ import annotations

import ast
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from admin import Admin, Away, Refused
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from ledger import Ledger
from mail import Mail, read_all
from virtualboard import VirtualBoard

MODEL: dict[str, Any] = {
    "properties": [
        {
            "name": "led",
            "index": 0,
            "type": "Boolean",
            "access": "ReadWrite",
            "default": False,
            "driver": {"type": "GpioOut", "pins": [2]},
        },
        {"name": "step", "index": 1, "type": "Integer", "access": "ReadWrite", "minimum": 0, "default": 0},
        {"name": "target", "index": 2, "type": "Number", "access": "ReadWrite", "minimum": 5, "maximum": 35},
        {"name": "label", "index": 3, "type": "String", "access": "ReadWrite", "maxLength": 16},
        {
            "name": "light",
            "index": 4,
            "type": "Number",
            "access": "ReadOnly",
            "driver": {"type": "Adc", "pins": [34], "scale": 0.5},
        },
        {
            "name": "door",
            "index": 5,
            "type": "Boolean",
            "access": "ReadOnly",
            "driver": {"type": "GpioIn", "pins": [4], "pull": "Up", "inverted": True},
        },
    ]
}
PROGRAM = """
import os
from boardlet import app

FOLDER = os.getenv("BOARDLET_PINS")


def keep(name):
    def handle(value):
        with open(FOLDER + "/" + name, "a") as f:
            f.write(repr(value) + "\\n")

    app.property(name)(handle)


for name in ("step", "target", "label"):
    keep(name)
"""
WRITABLE = ("led", "step", "target", "label")
LED, DOOR, LIGHT = 2, 4, 34
# Quick to be proven and to be missed, so that a case takes seconds.
QUICK = {"proven_s": 1, "stable_s": 1}
SETTINGS = {"heartbeatSeconds": 5}
READY_S = 60.0


@dataclass(slots=True)
class Member:
    """One board of the fleet."""

    name: str
    board_id: str
    board: VirtualBoard
    step: int = 0  # of the last edit that was asked for, accepted or not

    def taken(self) -> list[int]:
        """Every step that the board has taken, in order."""
        return [int(line) for line in self._lines("step")]

    def has(self, name: str) -> object:
        """The value of a property as the silicon has it."""
        match name:
            case "led":
                return bool(self.board.pin(LED))
            case "door":
                return self.board.pin(DOOR) == 0
            case "light":
                return 0.5 * (self.board.adc(LIGHT) or 0)
        lines = self._lines(name)
        return ast.literal_eval(lines[-1]) if lines else None

    def _lines(self, name: str) -> list[str]:
        path = self.board.folder / "pins" / name
        text = path.read_text() if path.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()  # a power cut may have left half a line


class Fleet:
    """Boards with their objects, powered; `config` is added to every board's own."""

    def __init__(
        self,
        site: Site,
        cluster: Cluster,
        kubeconfig: Path,
        count: int,
        seed: int,
        config: Mapping[str, object] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self.site = site
        self.cluster = cluster
        assert cluster.namespace
        self.kubeconfig, self.namespace = kubeconfig, cluster.namespace
        self.ledger = Ledger()
        self.seed = seed
        self.within = within
        self.config = {**QUICK, **(config or {})}
        self.members = [self._member(n) for n in range(count)]
        with self.admin() as admin:
            admin.create("boardmodels", "fleet", "BoardModel", MODEL)
            for member in self.members:
                self.register(admin, member)
        for member in self.members:
            member.board.start()

    def admin(self) -> Admin:
        """A new connection to the API server."""
        return Admin(self.kubeconfig, self.namespace)

    def _member(self, number: int) -> Member:
        board_id = f"fleet{number:03d}"
        board = self.site.add_board(board_id, config=self.config, within=self.within)
        (board.flash / "app.py").write_text(PROGRAM)
        return Member(f"board-{number}", board_id, board)

    def add(self) -> Member:
        """One more board, without an object and without power."""
        member = self._member(len(self.members))
        self.members.append(member)
        return member

    def register(self, admin: Admin, member: Member) -> None:
        """Create a board's object."""
        properties = {"led": False, "step": member.step, "target": 20.8, "label": member.name}
        spec = {"boardID": member.board_id, "modelRef": {"name": "fleet"}, "properties": properties}
        made = admin.create("boards", member.name, "Board", {**spec, "settings": SETTINGS})
        self.ledger.edited(member.name, made["metadata"]["generation"], member.step)

    def edit(self, admin: Admin, member: Member, dice: random.Random) -> None:
        """One edit: the next step, and one other property."""
        member.step += 1
        other: dict[str, Any] = dice.choice(
            [
                {"led": dice.random() < 0.5},
                {"target": round(dice.uniform(5, 35), 1)},
                {"label": f"{member.name}-{dice.randrange(1000)}"},
            ]
        )
        try:
            obj = admin.patch(member.name, {"spec": {"properties": {"step": member.step, **other}}})
        except (Away, Refused):
            self.ledger.unanswered()
        else:
            self.ledger.edited(member.name, obj["metadata"]["generation"], member.step)

    def differences(self) -> list[str]:
        """Every property of a board that is not everywhere the same, and every Board that is not Ready; in words."""
        with self.admin() as admin:
            try:
                objects = admin.boards()
            except Away as error:
                return [f"the API server does not answer: {error}"]
        try:
            mails = read_all(self.site, [member.board_id for member in self.members])
        except OSError as error:
            return [f"the broker does not answer: {error}"]
        found: list[str] = []
        for member in self.members:
            obj = objects.get(member.name)
            found += [f"{member.name}: {said}" for said in compare(member, obj, mails.get(member.board_id))]
        return found

    def settled(self, wait_s: float = READY_S) -> list[str]:
        """The differences once there are none, or those that are left after `wait_s` seconds."""
        deadline = time.monotonic() + wait_s
        while True:
            found = self.differences()
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.3)

    def lost(self) -> int:
        """How many accepted edits are neither on their board nor superseded by a later one."""
        return sum(self.ledger.lost(m.name, taken[-1] if (taken := m.taken()) else -1) for m in self.members)

    def backwards(self) -> list[str]:
        """Every time that a board took a lower step than before."""
        found = []
        for member in self.members:
            taken = member.taken()
            found += [f"{member.name}: from {a} to {b}" for a, b in pairwise(taken) if b < a]
        return found


def compare(member: Member, obj: dict[str, Any] | None, mail: Mail | None) -> list[str]:
    """What is not the same between object, board, status and mailbox, in words."""
    if obj is None:
        return ["there is no object"]
    if mail is None:
        return ["there is no mailbox"]
    asked, status = obj["spec"]["properties"], obj.get("status") or {}
    reported, desired = status.get("reported") or {}, status.get("desired") or {}
    found = []
    for prop in MODEL["properties"]:
        name = prop["name"]
        have = {"board": member.has(name), "status": reported.get(name)}
        if name in WRITABLE:
            have |= {"spec": asked.get(name), "mailbox": mail.values.get(prop["index"])}
        if len({same(value) for value in have.values()}) != 1:
            found.append(f"{name}: " + ", ".join(f"{where} has {value!r}" for where, value in have.items()))
    if (desired.get("revision"), desired.get("digest")) != (mail.revision, mail.digest):
        found.append(f"status.desired is {desired}, the mailbox has {mail.revision}, {mail.digest}")
    if status.get("observedGeneration") != obj["metadata"]["generation"]:
        found.append(f"generation {obj['metadata']['generation']}, observed {status.get('observedGeneration')}")
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] != "True":
            found.append(f"Ready is {condition['status']}: {condition['reason']}, {condition['message']}")
    return found


def same(value: object) -> object:
    """The value as it can be compared: numbers travel in single precision."""
    return value if value is None or isinstance(value, bool | str) else round(float(value), 3)  # type: ignore[arg-type]


class Life:
    """Editors, sensors and a witness of every status, each in a thread, while faults happen; a context manager."""

    def __init__(
        self, fleet: Fleet, edits_per_s: float = 8.0, sensors_per_s: float = 8.0, among: Sequence[Member] = ()
    ) -> None:
        self._fleet = fleet
        self._members = among or fleet.members
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [self._thread(self._witness, 0)]
        if sensors_per_s:
            self._threads.append(self._thread(self._turn, 1 / sensors_per_s))
        if edits_per_s:
            self._threads.append(self._thread(self._edit, 1 / edits_per_s))

    def __enter__(self) -> Life:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if self._failed:
            raise self._failed[0]

    def _thread(self, work: Callable[[float], None], pause_s: float) -> threading.Thread:
        def run() -> None:
            try:
                work(pause_s)
            except BaseException as error:  # shown by the thread that made this one
                self._failed.append(error)

        return threading.Thread(target=run, name=work.__name__, daemon=True)

    def _edit(self, pause_s: float) -> None:
        dice = random.Random(self._fleet.seed)
        with self._fleet.admin() as admin:
            while not self._stop.wait(pause_s):
                self._fleet.edit(admin, dice.choice(self._members), dice)

    def _turn(self, pause_s: float) -> None:
        dice = random.Random(self._fleet.seed + 1)
        while not self._stop.wait(pause_s):
            board = dice.choice(self._members).board
            if dice.random() < 0.5:
                board.set_adc(LIGHT, dice.randrange(65536))
            else:
                board.set_pin(DOOR, dice.randrange(2))

    def _witness(self, _: float) -> None:
        # Also after the last edit: what was claimed of it is claimed now.
        members = {member.name: member for member in self._fleet.members}
        with self._fleet.admin() as admin:
            while not self._stop.is_set():
                try:
                    for obj in admin.watch():
                        if (member := members.get(obj["metadata"]["name"])) is not None:
                            self._look(member, obj)
                        if self._stop.is_set():
                            return
                except (Away, KeyError):  # KeyError: an error in the place of an object
                    self._stop.wait(0.2)

    def _look(self, member: Member, obj: dict[str, Any]) -> None:
        status = obj.get("status") or {}
        synced = {c["type"]: c for c in status.get("conditions") or ()}.get("Synced") or {}
        if synced.get("status") == "True":
            self._fleet.ledger.claimed(member.name, int(synced["observedGeneration"]), max(member.taken(), default=-1))
