"""What every test shares: no clock in Hypothesis, and no silent skip in CI."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The machines that run the suite are busy with real parts: how long one example takes says nothing.
settings.register_profile("boardlet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("boardlet")

ALLOWED = [
    line
    for line in (Path(__file__).parent / "allowed_skips.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, None, None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(reason.startswith(allowed) for allowed in ALLOWED):
            report.outcome = "failed"
            report.longrepr = (
                f"skipped in CI: {reason} (install what is missing, or allow it in tests/allowed_skips.txt)"
            )
