"""Boards in a network of their own, whose link is cut and healed, slow, and lossy: real packets, real TCP."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from bench.radio import Radio
from boardlet_cli.site import Site
from boards_in_use import Fleet, Life
from broker import Programs
from judge import Case, MakeFleet
from provision.missing import Missing

SEED = 61


@pytest.fixture
def radio(broker_programs: Programs) -> Iterator[Radio]:
    """A link to a namespace of its own."""
    if broker_programs.name != "mosquitto":
        pytest.skip("mosquitto is missing: boards in a namespace need a broker with two listeners")
    try:
        with Radio(SEED) as made:
            yield made
    except Missing as missing:
        pytest.skip(str(missing))


def beyond(radio: Radio, make_fleet: MakeFleet, count: int) -> Fleet:
    """A fleet on the far side of the link."""

    def prepare(site: Site) -> None:
        site.broker.also = radio.near

    return make_fleet(count, SEED, prepare=prepare, config={"host": radio.near}, within=radio.within)


def test_network_cut_and_healed(case: Case, make_fleet: MakeFleet, radio: Radio) -> None:
    """No packet passes for a while, again and again: nobody is told that connections are over."""
    cuts = case.count(6, 1)
    fleet = beyond(radio, make_fleet, case.count(12, 4))
    dice = random.Random(SEED)
    with Life(fleet):
        for _ in range(cuts):
            radio.cut = True
            time.sleep(dice.uniform(2, case.count(25, 9)))  # shorter and longer than a keep-alive
            radio.cut = False
            time.sleep(dice.uniform(1, 3))
    case.injected(f"seed {SEED}: {cuts} × link cut and healed, {radio.lost} packets lost")
    case.judge(fleet, wait_s=150)


@pytest.mark.full
def test_network_slow(case: Case, make_fleet: MakeFleet, radio: Radio) -> None:
    """A second each way, as by satellite and worse: all is confirmed on the slow link."""
    fleet = beyond(radio, make_fleet, case.count(12, 4))
    radio.latency_s = 1.0
    with Life(fleet):
        time.sleep(case.count(30, 6))
    case.judge(fleet, wait_s=150)
    case.injected(f"1 s latency each way, {radio.passed} packets")


def test_network_lossy(case: Case, make_fleet: MakeFleet, radio: Radio) -> None:
    """Every fifth packet is lost, both ways: all is confirmed on the lossy link."""
    fleet = beyond(radio, make_fleet, case.count(12, 4))
    radio.passed, radio.loss = 0, 0.2
    with Life(fleet):
        time.sleep(case.count(30, 6))
    case.judge(fleet, wait_s=150)
    case.injected(f"seed {SEED}: 20 % loss, {radio.lost} of {radio.lost + radio.passed} packets lost")
    assert radio.lost >= 20
