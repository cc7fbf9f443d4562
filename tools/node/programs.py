"""The programs of a node: Kubernetes' and CoreDNS from the Go module beside this file, the rest from the distribution.

Built once, into the cache, at the version of the control plane. containerd is unpacked from the distribution's
packages where it is not installed; what else is missing is named.
"""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.programs import kubernetes_release, ldflags
from provision import cache, debs, golang
from provision.missing import Missing
from provision.progress import Progress

MODULE: Final = Path(__file__).parent / "go"
_BUILT: Final = {
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "coredns": "./coredns",
    "pause": "./pause",
}
_BUILD_S: Final = 360.0  # two quiet cores, downloads included
# By program: the package that has it.
_SYSTEM: Final = {
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
_PLUGINS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_NEEDED_PLUGINS: Final = ("bridge", "host-local", "portmap", "loopback")


@dataclass(frozen=True, slots=True)
class Programs:
    """Where a node's programs are."""

    kubelet: Path
    controller_manager: Path
    scheduler: Path
    proxy: Path
    coredns: Path
    pause: Path
    containerd: debs.Program
    plugins: Path
    """Folder of the CNI plugins."""


def find(progress: Progress | None = None) -> Programs:
    """The programs, built first if need be (minutes). Raises `Missing` or `golang.BuildFailed`."""
    if os.geteuid() != 0:
        raise Missing("root", "a node mounts, makes networks and control groups: run it as root")
    for name, package in _SYSTEM.items():
        if debs.installed(name) is None:
            raise Missing(name, f"install the package {package}")
    plugins = next((p for p in _PLUGINS if all((p / name).is_file() for name in _NEEDED_PLUGINS)), None)
    if plugins is None:
        raise Missing("CNI plugins", "install the package containernetworking-plugins")
    containerd = debs.installed("containerd") or debs.program("containerd", progress=progress)
    folder = built(progress)
    kubelet, controller_manager, scheduler, proxy, coredns, pause = (folder / name for name in _BUILT)
    return Programs(kubelet, controller_manager, scheduler, proxy, coredns, pause, containerd, plugins)


def built(progress: Progress | None = None) -> Path:
    """The folder of what is built, out of the cache."""
    release = kubernetes_release()
    stamp = ldflags(release)
    key = hashlib.sha256("\n".join([*stamp, platform.machine()]).encode())
    for part in ("go.mod", "go.sum", "coredns/main.go", "pause/main.go"):
        key.update((MODULE / part).read_bytes())

    def build(into: Path) -> None:
        golang.build(MODULE, _BUILT, into, ldflags=stamp, progress=progress)

    version = f"{release}-{key.hexdigest()[:12]}"
    if not cache.there("node", version):
        golang.toolchain(MODULE, progress)
    what = f"building kubelet {release} and what goes with it, once for this machine"
    return cache.artifact("node", version, build, progress=progress, what=what, usual_s=_BUILD_S)
