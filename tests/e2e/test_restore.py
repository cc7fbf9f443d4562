"""Rule 2 with real parts: the cluster is restored from an older backup than its boards."""

from __future__ import annotations

from controlplane import ControlPlane
from greenhouse import LED, Greenhouse


def test_the_cluster_is_restored_from_an_older_backup(one: Greenhouse, plane: ControlPlane) -> None:
    """A restored object that is older than its board is told, undoes nothing by itself, and is settled by a person."""
    one.edit(led=False)
    one.synced()
    backup = plane.snapshot()
    later = one.edit(led=True)
    one.synced(later)
    plane.restore(backup)
    obj = one.until("Restored", "True", "OlderThanBoard", wait_s=120)
    assert one.condition("Synced", obj) == ("False", "Restored")
    assert one.board.pin(LED) == 1, "nothing was undone"
    assert f"accept-restore={later}" in next(
        c["message"] for c in obj["status"]["conditions"] if c["type"] == "Restored"
    )
    one.cluster.run("annotate", "--overwrite", "board", one.name, f"boardlet.dev/accept-restore={later}")
    one.synced(wait_s=60)
    assert one.board.pin(LED) == 0
