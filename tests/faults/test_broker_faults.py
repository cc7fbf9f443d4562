"""The broker dies, forgets, remembers too little, or its connections break inside of a packet."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator

import pytest
from boards_in_use import Fleet, Life
from fakes.tcp_proxy import OFFSETS, TcpProxy
from judge import Case, MakeFleet

SEED = 23
STORES = ("kept", "lost", "older")


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """A proxy between the broker and everybody else."""
    with TcpProxy(SEED) as made:
        yield made


def behind(proxy: TcpProxy, make_fleet: MakeFleet, count: int, *, bridge: bool = True) -> Fleet:
    """A fleet whose boards, and whose bridge if told so, reach the broker through the proxy."""
    more = {"broker_port": proxy.port} if bridge else {}
    return make_fleet(count, SEED, prepare=lambda s: proxy.to(s.broker.port), config={"port": proxy.port}, **more)


def test_cut_in_mid_packet(case: Case, make_fleet: MakeFleet, proxy: TcpProxy) -> None:
    """Connections of bridge and boards end inside of a packet, at every part of one, and packets are late."""
    cuts = case.count(120, 15)
    fleet = behind(proxy, make_fleet, case.count(12, 4))
    proxy.cut_chance, proxy.delay_s = 0.02, 0.01
    with Life(fleet, edits_per_s=15):
        until = time.monotonic() + case.count(270, 60)
        while sum(proxy.cuts.values()) < cuts or len(proxy.cuts) < len(OFFSETS):
            assert time.monotonic() < until, f"only {proxy.cuts}"
            time.sleep(0.1)
    proxy.cut_chance = proxy.delay_s = 0.0
    case.injected(f"seed {SEED}: {sum(proxy.cuts.values())} cuts, at each of {len(OFFSETS)} parts of a packet")
    case.judge(fleet)


def test_half_open_connections(case: Case, make_fleet: MakeFleet, proxy: TcpProxy) -> None:
    """Connections that stay open and carry nothing any more are found out by both ends, and replaced."""
    stalls = case.count(3, 1)
    fleet = behind(proxy, make_fleet, case.count(12, 4), bridge=case.full)
    stalled = 0
    with Life(fleet):
        for _ in range(stalls):
            time.sleep(1)
            stalled += proxy.stall()
            time.sleep(case.count(60, 9))  # longer than a keep-alive
    case.injected(f"{stalled} connections half open" + (", the bridge's too" if case.full else ""))
    case.judge(fleet, wait_s=150)
    assert stalled >= 4


def test_broker_killed(case: Case, make_fleet: MakeFleet) -> None:
    """kill -9 of the broker under traffic; it comes back with its store, without it, or with an older copy of it."""
    kills = case.count(30, 3)
    case.injected(f"seed {SEED}: {kills} × kill -9 of the broker, its store {' / '.join(STORES)} in turn")
    # The store is written so often that a copy of it is older, and not empty.
    fleet = make_fleet(case.count(12, 4), SEED, prepare=lambda s: setattr(s.broker, "autosave_s", 1))
    dice = random.Random(SEED)
    broker = fleet.site.broker
    data, copy = broker.folder / "data", broker.folder / "copy"
    with Life(fleet, edits_per_s=15):
        for number in range(kills):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.new"))
            time.sleep(dice.uniform(0.5, 2.0))  # the moment is the fault
            broker.kill()
            if STORES[number % 3] != "kept":
                shutil.rmtree(data)
            if STORES[number % 3] == "older":
                shutil.copytree(copy, data)
            broker.start()
    case.judge(fleet)


@pytest.mark.full
def test_broker_and_bridge_killed(case: Case, make_fleet: MakeFleet) -> None:
    """Both die at once and the store is lost: object and board alone hold the truth, and nothing goes back."""
    kills = case.count(10, 2)
    case.injected(f"{kills} × kill -9 of broker and bridge, the store lost")
    fleet = make_fleet(case.count(12, 4), SEED)
    with Life(fleet, edits_per_s=15):
        for _ in range(kills):
            time.sleep(1.5)
            fleet.site.bridge.kill()
            fleet.site.broker.kill()
            shutil.rmtree(fleet.site.broker.folder / "data")
            time.sleep(0.5)
            fleet.site.broker.start()
            fleet.site.bridge.start()
    case.judge(fleet)
