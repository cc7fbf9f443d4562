"""A site that moves from its folder to a cluster and back: same board, same broker, and nothing is lost on the way."""

from __future__ import annotations

from typing import Any

from boardlet_cli.bridge import BridgeProcess
from boardlet_cli.cluster import Cluster
from folderworld import LED, FolderSite, loaded, until


def ready(cluster: Cluster, **status: Any) -> dict[str, Any]:
    """The Board in the cluster once it is Ready at its present generation."""

    def true(obj: dict[str, Any]) -> bool:
        said = obj.get("status", {})
        synced = {c["type"]: c["status"] for c in said.get("conditions", [])}.get("Ready") == "True"
        return synced and said.get("observedGeneration") == obj["metadata"]["generation"]

    return cluster.until("board", "g1", true, 30)


def in_cluster(site: FolderSite, cluster: Cluster) -> BridgeProcess:
    """Another bridge of this site, for the cluster; not started."""
    config = cluster.bridge_kubeconfig(site.folder / "bridge.kubeconfig")
    settings = {name: value for name, value in site.settings.items() if not name.startswith("store")}
    folder = site.folder / "cluster"
    folder.mkdir()
    return BridgeProcess(folder, {**settings, "kubeconfig": config, "namespaces": f'["{cluster.namespace}"]'})


def test_from_folder_to_cluster_and_back(site: FolderSite, cluster: Cluster) -> None:
    """kubectl apply of the folder and kubectl get into one keep all there is; of two that differ somebody chooses."""
    words = {"labels": {"site": "north"}, "annotations": {"contact": "Ada"}}
    site.edit("  name: g1\n", "  name: g1\n  labels: {site: north}\n  annotations: {contact: Ada}\n")
    site.bridge.start()
    site.board.start()
    site.synced(1)
    site.boardlet("set", "board/g1", "led=true", "--wait", "20")
    before = site.synced(2)
    site.bridge.stop()

    cluster.run("apply", "-R", "-f", str(site.objects))
    bridge = in_cluster(site, cluster)
    try:
        bridge.start()
        moved = ready(cluster)
        assert moved["spec"] == before["spec"]
        assert said(moved, words) == words
        assert moved["status"]["reported"]["led"] is True
        assert moved["status"]["desired"]["revision"] > before["status"]["desired"]["revision"], "it is another object"
        assert moved["status"]["board"]["bootCount"] == before["status"]["board"]["bootCount"]
        bridge.stop()

        exported = cluster.run("get", "boardmodels,boards", "-o", "yaml").stdout
        _replace(site, exported)
        site.bridge.start()

        def same() -> dict[str, Any] | None:
            obj = _object(site, cluster)
            conditions = {c["type"]: c["status"] for c in obj.get("status", {}).get("conditions", ())}
            return obj if conditions.get("Ready") == "True" and site.bridge.ready else None

        back = until(same)
        for field in ("uid", "generation", "creationTimestamp"):
            assert back["metadata"][field] == moved["metadata"][field]
        assert said(back, words) == words
        assert back["status"]["desired"] == moved["status"]["desired"], "nothing was minted"

        # While the cluster is away, somebody edits the folder; the cluster's object is older than its board then.
        site.boardlet("set", "board/g1", "led=false", "--wait", "20", "-n", str(cluster.namespace))
        assert site.board.pin(LED) == 0
        site.bridge.stop()
        bridge.start()
        cluster.until("board", "g1", lambda obj: _reason(obj, "Synced") == "Restored", 30)
        assert site.board.pin(LED) == 0
        edited = site.boardlet("get", "boards", "-o", "apply", "-n", str(cluster.namespace))
        cluster.run("apply", "-f", "-", stdin=edited)
        generation = _object(site, cluster)["metadata"]["generation"]
        cluster.run("annotate", "--overwrite", "board", "g1", f"boardlet.dev/accept-restore={generation}")
        again = ready(cluster)
        assert again["status"]["reported"]["led"] is False
        assert said(again, words) == words
        assert site.board.pin(LED) == 0
    finally:
        bridge.stop()
        print(f"--- bridge in the cluster\n{bridge.log[-3000:]}")


def said(obj: dict[str, Any], words: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Of these labels and annotations those that the object has; kubectl adds one of its own."""
    return {kind: {k: v for k, v in obj["metadata"].get(kind, {}).items() if k in words[kind]} for kind in words}


def _replace(site: FolderSite, exported: str) -> None:
    site.objects = site.folder / "back"
    site.objects.mkdir()
    (site.objects / "all.yaml").write_text(exported)
    site.settings["store"] = f"dir:{site.objects}"
    site.bridge = BridgeProcess(site.folder, site.settings)


def _object(site: FolderSite, cluster: Cluster) -> dict[str, Any]:
    return loaded(site.objects / f".status/{cluster.namespace}/boards/g1.status")


def _reason(obj: dict[str, Any], kind: str) -> str:
    return {c["type"]: c["reason"] for c in obj.get("status", {}).get("conditions", ())}.get(kind, "")
