"""The control plane is far away: thin, slow, lossy, and cut for long; boards, broker and bridge are on site."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.radio import Radio
from bench.uplink import Uplink
from boardlet_cli.cluster import Cluster
from boards_in_use import Life
from controlplane import ControlPlane
from judge import Case, MakeFleet
from provision.missing import Missing

SEED = 64
WAIT_S = 240.0  # a request may take a minute there, and its answer another


@pytest.fixture
def uplink(plane: ControlPlane) -> Iterator[Uplink]:
    """The API server, by a link."""
    try:
        with Radio(SEED) as radio, Uplink(radio, plane.port) as made:
            yield made
    except Missing as missing:
        pytest.skip(str(missing))


def test_uplink_thin_lossy_and_cut(
    case: Case, uplink: Uplink, make_fleet: MakeFleet, cluster: Cluster, tmp_path: Path
) -> None:
    """By 64 kbit/s, a second each way and 20 % loss an edit arrives and its status comes back; a cut, in which people
    edit and sensors move, loses nothing."""
    radio, cut_s = uplink.radio, case.count(20, 2)
    straight = cluster.bridge_kubeconfig(tmp_path / "straight.kubeconfig")
    own = {"kubeconfig": uplink.kubeconfig(straight, tmp_path / "far.kubeconfig"), "lease_s": 300}
    fleet = make_fleet(case.count(12, 3), SEED, **own)
    radio.bits_per_s, radio.latency_s, radio.loss = 64_000, 1.0, 0.2
    with fleet.admin() as admin:
        fleet.edit(admin, fleet.members[0], random.Random(SEED))
    began = time.monotonic()
    assert not (found := fleet.settled(WAIT_S)), "\n".join(found)
    took_s = time.monotonic() - began
    radio.cut = True
    with Life(fleet):
        time.sleep(cut_s)  # the length is the fault
    radio.cut = False
    radio.bits_per_s = radio.latency_s = radio.loss = 0.0
    case.injected(f"64 kbit/s, 1 s each way, 20 % loss: an edit and back {took_s:.0f} s; then cut for {cut_s} s")
    case.judge(fleet, wait_s=WAIT_S)
    assert radio.lost
