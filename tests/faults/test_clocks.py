"""Clocks that jump: the bridge's wall clock by a day, the boards' milliseconds over their end."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from boardlet_cli.site import Site
from boards_in_use import Fleet, Life
from judge import Case, MakeFleet

SEED = 71
LIBRARY = "faketime/libfaketimeMT.so.1"
HOOK = Path(__file__).with_name("wrap_time.py")
AHEAD_S = {"+1d": 86400.0, "+0": 0.0, "-1d": -86400.0}
JUMPS = ("+1d", "+0", "-1d", "+0")


def library() -> Path:
    """libfaketime; skips where there is none."""
    for folder in (Path("/usr/lib"), Path("/usr/local/lib"), *Path("/usr/lib").glob("*-linux-gnu")):
        if (folder / LIBRARY).exists():
            return folder / LIBRARY
    pytest.skip("libfaketime is missing: apt-get install faketime")


def connected(obj: dict[str, Any]) -> dict[str, Any]:
    """The condition Connected."""
    return next(c for c in obj["status"]["conditions"] if c["type"] == "Connected")


def _age_of_a_change(fleet: Fleet) -> float:
    # How far ahead of this machine's clock the time is that a condition says, which changes now.
    one = fleet.members[0]

    def until(status: str) -> dict[str, Any]:
        return fleet.cluster.until("board", one.name, lambda obj: connected(obj)["status"] == status, 60)

    one.board.kill()
    until("False")
    one.board.start()
    said = connected(until("True"))["lastTransitionTime"]
    return (datetime.fromisoformat(said) - datetime.now(UTC)).total_seconds()


def test_wall_clock_jumps(case: Case, make_fleet: MakeFleet, tmp_path: Path) -> None:
    """The bridge's clock goes a day forward and back, then a day backward and right again; deadlines do not move."""
    found, clock = library(), tmp_path / "clock"
    clock.write_text("+0")

    def prepare(site: Site) -> None:
        variables = {
            "LD_PRELOAD": found,
            "FAKETIME_TIMESTAMP_FILE": clock,
            "FAKETIME_CACHE_DURATION": 1,  # so soon a jump counts
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,  # as when somebody sets the time of a machine
        }
        site.bridge.process.argv = ["env", *(f"{k}={v}" for k, v in variables.items()), *site.bridge.process.argv]

    jumps = JUMPS * case.count(2, 1)
    case.injected(f"bridge's wall clock {', '.join(jumps)}")
    fleet = make_fleet(case.count(12, 4), SEED, prepare=prepare)
    with Life(fleet):
        for jump in jumps:
            clock.write_text(jump)
            time.sleep(case.count(4, 2))
            assert abs(_age_of_a_change(fleet) - AHEAD_S[jump]) < 3600, "the bridge's clock has jumped"
            with fleet.admin() as admin:
                for obj in admin.boards().values():
                    assert connected(obj)["status"] == "True", f"{jump}: {connected(obj)}"
    case.judge(fleet)


def test_ticks_wrap(case: Case, make_fleet: MakeFleet) -> None:
    """A board's milliseconds begin anew while it is edited: no deadline is missed, nothing waits for twelve days."""
    fleet = make_fleet(case.count(12, 4), SEED)
    with Life(fleet):
        for member in fleet.members:
            member.board.kill()
            shutil.copy(HOOK, member.board.flash / "time.py")
            member.board.start()
        time.sleep(case.count(30, 9))  # the end is four seconds after the boot
    case.injected(f"milliseconds of {len(fleet.members)} boards begin anew")
    case.judge(fleet)
    for member in fleet.members:
        assert "Traceback" not in member.board.log.read_text(errors="replace")
