"""A board loses its power at every write of its flash: during an edit, a change of its model, and a boot.

It comes back, offline, with the last or the previous state as a whole, and is as asked once it has a network again.
"""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from boardlet_cli.cluster import Cluster
from boards_in_use import MODEL, WRITABLE, Fleet, Life, Member, same
from fakes.tcp_proxy import TcpProxy
from judge import Case, MakeFleet

SEED = 41
WAIT_S = 60.0
COUNTING = 1000  # more writes than there are
HOOK = Path(__file__).with_name("cut_os.py")
State = dict[str, object]


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """The boards' way to the broker, which can be closed."""
    with TcpProxy(SEED) as made:
        yield made


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def kept(member: Member, name: str) -> Any:
    """What the board's store holds under a name, read from its flash."""
    best = (0, None)
    for slot in "ab":
        path = member.board.flash / "state" / (name + slot)
        raw = path.read_bytes() if path.exists() else b""
        if len(raw) > 12:
            best = max(best, (struct.unpack_from(">I", raw, 4)[0], raw[12:]), key=lambda pair: pair[0])
    return cbor2.loads(best[1]) if best[1] else None


class Cuts:
    """One scenario on a fleet: measures how many writes it has, then cuts each of them, clean and torn."""

    def __init__(self, case: Case, fleet: Fleet, proxy: TcpProxy) -> None:
        self.case, self.fleet, self.proxy = case, fleet, proxy
        for member in fleet.members:
            member.board.kill()
            shutil.copy(HOOK, member.board.flash / "os.py")
            member.board.start()

    def run(self, disturb: Callable[[], None]) -> None:
        """`disturb` makes every board write its flash."""
        writes = self._count(disturb)
        cuts = [(at, how) for how in ("clean", "torn") for at in range(writes)]
        size = len(self.fleet.members)
        if not self.case.full and len(cuts) > size:
            cuts = [cuts[n * len(cuts) // size] for n in range(size)]
        for first in range(0, len(cuts), size):
            self._batch(disturb, cuts[first : first + size])
        self.case.injected(f"{len(cuts)} power cuts at {writes} writes of the flash, clean and torn")

    def _count(self, disturb: Callable[[], None]) -> int:
        self._proven()
        one = self.fleet.members[0]
        self._arm(one, COUNTING, "clean")
        disturb()
        self._proven()
        left = int((one.board.folder / "pins/cut").read_text().split()[0])
        (one.board.folder / "pins/cut").unlink()
        return COUNTING - left

    def _batch(self, disturb: Callable[[], None], cuts: list[tuple[int, str]]) -> None:
        self._proven()
        victims = self.fleet.members[: len(cuts)]
        before = {member.name: state(member) for member in victims}
        for member, (at, how) in zip(victims, cuts, strict=True):
            self._arm(member, at, how)
        disturb()
        dead = [member.board.folder / "pins/dead" for member in victims]
        until(lambda: all(path.exists() for path in dead), "every power cut happens")
        self.proxy.to(0)
        for member in victims:
            member.board.kill()
            for name in ("cut", "dead"):
                (member.board.folder / "pins" / name).unlink()
        lines = {member.name: len(member.taken()) for member in victims}
        with self.fleet.admin() as admin:
            objects = admin.boards()
        for member in victims:
            member.board.start()
        for member, cut in zip(victims, cuts, strict=True):
            after = {name: same(objects[member.name]["spec"]["properties"][name]) for name in WRITABLE}
            whole = [before[member.name], after]
            until(lambda m=member: len(m.taken()) > lines[m.name], f"{member.name} boots alone after {cut}")  # type: ignore[misc]
            until(lambda m=member, w=whole: state(m) in w, f"{member.name} after {cut} is a mixture of {whole}")  # type: ignore[misc]
        self.proxy.to(self.fleet.site.broker.port)
        assert not (found := self.fleet.settled(WAIT_S)), f"after {cuts}:\n" + "\n".join(found)

    def _arm(self, member: Member, at: int, how: str) -> None:
        (member.board.folder / "pins/cut").write_text(f"{at} {how}")

    def _proven(self) -> None:
        # Every board is as asked, has proven it, and counts its boot as one that lasted: it writes no more.
        assert not (found := self.fleet.settled(WAIT_S)), "\n".join(found)
        with self.fleet.admin() as admin:
            objects = admin.boards()

        def quiet() -> bool:
            return all(
                (kept(m, "good") or [0, 0])[1] == objects[m.name]["status"]["desired"]["revision"]
                and kept(m, "boot")[1] == 0
                for m in self.fleet.members
            )

        until(quiet, "every board has proven its state")


def state(member: Member) -> State:
    """What the silicon has, of what can be asked for."""
    return {name: same(member.has(name)) for name in WRITABLE}


@pytest.fixture
def cuts(case: Case, make_fleet: MakeFleet, proxy: TcpProxy) -> Cuts:
    """A fleet with the hook in its flash, behind the proxy."""
    count = case.count(12, 8)
    fleet = make_fleet(count, SEED, prepare=lambda s: proxy.to(s.broker.port), config={"port": proxy.port})
    return Cuts(case, fleet, proxy)


def test_power_cut_during_an_edit(case: Case, cuts: Cuts) -> None:
    """Of an edit the board has all or nothing."""
    led = False

    def edit() -> None:
        nonlocal led
        led = not led
        with cuts.fleet.admin() as admin:
            for member in cuts.fleet.members:
                member.step += 1
                label, target = f"edit-{member.step}", 20 + member.step / 10
                values = {"led": led, "step": member.step, "label": label, "target": target}
                obj = admin.patch(member.name, {"spec": {"properties": values}})
                cuts.fleet.ledger.edited(member.name, obj["metadata"]["generation"], member.step)

    with Life(cuts.fleet, edits_per_s=0, sensors_per_s=0):
        cuts.run(edit)
    case.judge(cuts.fleet, may_go_back=True)


def test_power_cut_during_a_model_change(case: Case, cuts: Cuts, cluster: Cluster) -> None:
    """A model that grows is fetched, stored and switched to, or fetched again."""
    properties = list(MODEL["properties"])

    def grow() -> None:
        index = len(properties)
        driver = {"type": "GpioOut", "pins": [index + 10]}
        more = {"name": f"more{index}", "index": index, "type": "Boolean", "access": "ReadWrite", "default": True}
        properties.append({**more, "driver": driver})
        with cuts.fleet.admin() as admin:
            admin.patch_model("fleet", {"spec": {"properties": properties}})
        cluster.until(
            "boardmodel", "fleet", lambda o: o["status"]["observedGeneration"] == o["metadata"]["generation"], 30
        )

    with Life(cuts.fleet, edits_per_s=0, sensors_per_s=0):
        cuts.run(grow)
    case.judge(cuts.fleet, may_go_back=True)
    assert all(m.board.pin(len(properties) + 9) == 1 for m in cuts.fleet.members), "they run the last model"


@pytest.mark.full
def test_power_cut_during_a_boot(case: Case, cuts: Cuts) -> None:
    """A boot that is cut at any write is followed by one that works."""

    def boot() -> None:
        for member in cuts.fleet.members:
            member.board.kill()
            member.board.start()

    with Life(cuts.fleet, edits_per_s=0, sensors_per_s=0):
        cuts.run(boot)
    case.judge(cuts.fleet, may_go_back=True)
