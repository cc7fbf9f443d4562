"""The bridge dies at any moment, as of a power cut: it keeps nothing, so nothing is lost."""

from __future__ import annotations

import random
import time

from boards_in_use import Life
from judge import Case, MakeFleet


def test_bridge_killed_at_random_moments(case: Case, make_fleet: MakeFleet) -> None:
    """kill -9 of the bridge at seeded random moments while edits go on and statuses are being written."""
    seed, kills = 4, case.count(50, 6)
    case.injected(f"{kills} × kill -9 of the bridge, seed {seed}")
    fleet = make_fleet(case.count(12, 4), seed)
    dice = random.Random(seed)
    with Life(fleet, edits_per_s=20):
        for _ in range(kills):
            time.sleep(dice.uniform(0.0, 1.5))  # the moment is the fault
            fleet.site.bridge.kill()
            time.sleep(dice.uniform(0.0, 0.3))
            fleet.site.bridge.process.start()
            if dice.random() < 0.7:  # else it dies while it is still starting
                fleet.site.bridge.wait_ready()
        fleet.site.bridge.wait_ready()
    case.judge(fleet)
