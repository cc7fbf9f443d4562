"""The control plane of demo and tests can be stopped, frozen, restored, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from controlplane import ControlPlane, find
from provision.missing import Missing
from provision.process import listens
from provision.progress import for_stream


def test_snapshot_and_restore(tmp_path: Path) -> None:
    """What was made after a snapshot is gone after its restore, as with a cluster's backup; nothing runs in the end."""
    try:
        programs = find(for_stream())
    except Missing as missing:
        pytest.skip(str(missing))
    with ControlPlane(tmp_path, programs) as plane:
        plane.kubectl("create", "namespace", "before")
        kept = plane.snapshot()
        plane.kubectl("create", "namespace", "after")
        plane.restore(kept)
        names = plane.kubectl("get", "namespaces", "-o", "name").stdout.split()
        assert "namespace/before" in names
        assert "namespace/after" not in names
        pids = [plane.etcd.pid, plane.apiserver.pid]
        port = plane.port
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not listens(port)


def test_pause_answers_nothing(plane: ControlPlane) -> None:
    """A frozen API server keeps its connections and answers nothing, until it goes on."""
    plane.pause()
    try:
        assert plane.kubectl("get", "namespaces", "--request-timeout=1s", check=False).returncode
    finally:
        plane.resume()
    assert plane.kubectl("get", "namespaces").returncode == 0


def test_a_user_may_nothing_until_a_role_says_so(plane: ControlPlane) -> None:
    """A new user is known and has no rights: RBAC is on."""
    plane.add_user("somebody")
    done = plane.kubectl("get", "boards", "-A", user="somebody", check=False)
    assert "forbidden" in done.stderr.lower()
