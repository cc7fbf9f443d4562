"""The API server is away, frozen, or answers wrongly: boards are served as before, and what was missed is made good."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from boards_in_use import Fleet, Life
from controlplane import ControlPlane
from fakes.api_proxy import ApiProxy, Fault, next_page, reading, watch, writing
from judge import FULL, Case, MakeFleet

SEED = 11
# Every kind of wrong answer, on every way that the bridge has to the API server.
WRONG = (
    Fault("429", writing, 0.15),
    Fault("500", writing, 0.1),
    Fault("503", writing, 0.05),
    Fault("reset", writing, 0.1),
    Fault("forget", writing, 0.1),  # the write was done, and the answer is lost
    Fault("cut", writing, 0.1),
    Fault("slow", writing, 0.05),
    Fault("410", next_page, 0.3),
    Fault("500", reading, 0.1),
    Fault("cut", reading, 0.1),
    Fault("429", reading, 0.1),
    Fault("410", watch, 0.15),
    Fault("gone event", watch, 0.15),
    Fault("cut watch", watch, 0.2),
    Fault("429", watch, 0.1),
    Fault("500", watch, 0.1),
    Fault("403", watch, 0.05),
)


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[ApiProxy]:
    """A proxy before the API server; its pages hold three objects."""
    with ApiProxy(plane, SEED, page=3) as made:
        yield made


@pytest.fixture
def proxied(
    proxy: ApiProxy, cluster: Cluster, make_site: Callable[..., Site], tmp_path: Path
) -> Callable[..., dict[str, object]]:
    """Settings of a bridge that reaches the API server through the proxy."""
    straight = cluster.bridge_kubeconfig(tmp_path / "straight.kubeconfig")
    return lambda **more: {"kubeconfig": proxy.kubeconfig(straight, tmp_path / "proxied.kubeconfig"), **more}


def conditions(fleet: Fleet) -> dict[str, list[tuple[str, str, str]]]:
    """Of each Board every condition, and since when it is so."""
    with fleet.admin() as admin:
        return {
            name: [(c["type"], c["status"], c["lastTransitionTime"]) for c in obj["status"]["conditions"]]
            for name, obj in admin.boards().items()
        }


def test_api_server_stopped(case: Case, make_fleet: MakeFleet, plane: ControlPlane) -> None:
    """Without an API server boards are served; sensors move meanwhile, and all is written once it is back."""
    away_s = case.count(120, 3)
    case.injected(f"API server stopped for {away_s} s, edits before, sensors meanwhile")
    fleet = make_fleet(case.count(12, 4))
    with Life(fleet):
        time.sleep(2)
        plane.stop_apiserver()
        try:
            time.sleep(away_s)  # the length is the fault
        finally:
            plane.start_apiserver()
        time.sleep(2)
    case.judge(fleet)


def test_bridge_started_without_api_server(case: Case, make_fleet: MakeFleet, plane: ControlPlane) -> None:
    """A bridge that starts while the API server is away says so, and leaves boards to their flash and their mailboxes;
    once it is back every condition is as it was, and values are those of now."""
    fleet = make_fleet(case.count(12, 3))
    bridge, rebooted = fleet.site.bridge, fleet.members[0]
    before = conditions(fleet)
    case.injected("API server stopped; bridge and a board started anew meanwhile, sensors move")
    with Life(fleet, edits_per_s=0):
        plane.apiserver.kill()
        try:
            bridge.kill()
            bridge.process.start()
            rebooted.board.kill()
            rebooted.board.start()
            bridge.process.wait_until(lambda: bool(bridge.parts().get("cluster")))
            time.sleep(case.count(120, 1))  # the length is the fault
            assert not bridge.ready
            assert bridge.http("/livez")
        finally:
            plane.start_apiserver()
        bridge.wait_ready()
    case.judge(fleet)
    assert conditions(fleet) == before


@pytest.mark.full
def test_api_server_paused(case: Case, make_fleet: MakeFleet, plane: ControlPlane) -> None:
    """A frozen API server holds every connection open and answers nothing, longer than a request may take."""
    pauses, pause_s = 2, 30
    case.injected(f"{pauses} × API server frozen for {pause_s} s")
    fleet = make_fleet(case.count(12, 4))
    with Life(fleet):
        for _ in range(pauses):
            time.sleep(1)
            plane.pause()
            try:
                time.sleep(pause_s)  # the length is the fault
            finally:
                plane.resume()
            plane.wait_ready()
    case.judge(fleet)


@pytest.mark.full
def test_api_server_restarted(case: Case, make_fleet: MakeFleet, plane: ControlPlane) -> None:
    """An API server that is killed and started again and again, under edits."""
    restarts = case.count(10, 2)
    case.injected(f"{restarts} × kill -9 and restart of the API server")
    fleet = make_fleet(case.count(12, 4))
    with Life(fleet):
        for _ in range(restarts):
            time.sleep(1)
            plane.apiserver.kill()
            plane.start_apiserver()
    case.judge(fleet)


def test_api_server_answers_wrongly(
    case: Case, make_fleet: MakeFleet, proxy: ApiProxy, proxied: Callable[..., dict[str, object]]
) -> None:
    """429, 500, 503, 403, 410, resets, lost and cut answers on writes, lists and watches."""
    wrong_s = case.count(60, 10)
    fleet = make_fleet(case.count(12, 4), SEED, **proxied(resync_s=3))
    proxy.faults = WRONG
    with Life(fleet, edits_per_s=15):
        until = time.monotonic() + wrong_s
        while time.monotonic() < until:
            time.sleep(1)
            proxy.cut()  # so that new watches are asked for, and answered wrongly
        fleet.site.bridge.kill()  # also a first listing gets wrong answers
        fleet.site.bridge.start()
    proxy.faults = ()
    counts = ", ".join(f"{n} × {kind}" for kind, n in sorted(proxy.counts.items()))
    case.injected(f"seed {SEED}: {counts}")
    case.judge(fleet)
    assert len(proxy.counts) >= 9, counts


def test_blind_watches(
    case: Case, make_fleet: MakeFleet, proxy: ApiProxy, proxied: Callable[..., dict[str, object]]
) -> None:
    """Watches that stay open and tell nothing any more are found out: in full by their silence, else by a relist."""
    fleet = make_fleet(case.count(12, 4), **({} if FULL else {"resync_s": 4}), **proxied())
    with Life(fleet):
        time.sleep(1)
        blinded = proxy.blind()
        time.sleep(case.count(80, 8))
    case.injected(f"{blinded} watches gone silent" + ("" if FULL else ", relist every 4 s"))
    case.judge(fleet, wait_s=120)
    assert blinded >= 3
