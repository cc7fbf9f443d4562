"""What every test shares: one control plane, fresh namespaces, sites of real parts; and no silent skip in CI."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import broker as brokers
import controlplane
import pytest
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from hypothesis import HealthCheck, settings
from provision.missing import Missing
from provision.progress import for_stream

# The machines that run the suite are busy with real parts: how long one example takes says nothing.
settings.register_profile("boardlet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("boardlet")
os.environ["ESPTOOL_CFGFILE"] = str(Path(__file__).with_name("esptool.cfg"))

ALLOWED = [
    line
    for line in (Path(__file__).parent / "allowed_skips.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(reason.startswith(allowed) for allowed in ALLOWED):
            report.outcome = "failed"
            report.longrepr = (
                f"skipped in CI: {reason} (install what is missing, or allow it in tests/allowed_skips.txt)"
            )


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[controlplane.ControlPlane]:
    """A control plane for the whole run, with our kinds in it. Who stops it starts it again."""
    try:
        programs = controlplane.find(for_stream())
    except Missing as missing:
        pytest.skip(str(missing))
    with controlplane.ControlPlane(tmp_path_factory.mktemp("plane"), programs) as made:
        Cluster(programs.kubectl, made.kubectl_env()).install()
        yield made


@pytest.fixture
def cluster(plane: controlplane.ControlPlane) -> Iterator[Cluster]:
    """An admin's kubectl in a namespace of the test's own."""
    namespace = f"t-{uuid.uuid4().hex[:10]}"
    made = Cluster(plane.programs.kubectl, plane.kubectl_env(), namespace=namespace)
    made.run("create", "namespace", namespace)
    yield made
    names = made.run("get", "boards", "-o", "name").stdout.split()
    for name in names:  # a bridge that is gone cannot take its finalizers off
        made.run("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)
    made.run("delete", "boards,boardmodels", "--all", "--wait=false")
    made.run("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="session")
def broker_programs() -> brokers.Programs:
    """The broker that the demo takes too."""
    try:
        return brokers.find(for_stream())
    except Missing as missing:
        pytest.skip(str(missing))


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(cluster: Cluster, broker_programs: brokers.Programs, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes running sites that serve the test's namespace; shows their logs when the test fails."""
    sites: list[Site] = []

    def make(
        settings: Mapping[str, object] | None = None,
        prepare: Callable[[Site], None] | None = None,
        credentials: bool = False,
        dynamic: bool = False,
    ) -> Site:
        own = {"namespaces": f'["{cluster.namespace}"]', "log_level": "debug", **(settings or {})}
        site = Site(tmp_path / f"site{len(sites)}", cluster, broker_programs, own, credentials, dynamic)
        sites.append(site)
        if prepare is not None:
            prepare(site)
        site.start()
        return site

    yield make
    for site in sites:
        site.stop()
        print(f"--- bridge\n{site.bridge.log[-6000:]}")
        for board_id, board in site.boards.items():
            print(
                f"--- board {board_id}\n{board.log.read_text(errors='replace')[-3000:] if board.log.exists() else ''}"
            )


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """A running site that serves the test's namespace."""
    return make_site()
