"""The three programs of a control plane: kube-apiserver, etcd, kubectl, all recent enough.

They are those in `$KUBEBUILDER_ASSETS`, else those on PATH, else they are built from the Go module beside this file
(once, into the cache). The build stamps the version, without which kubectl cannot parse the server's.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from provision import cache, golang
from provision.missing import Missing
from provision.progress import Progress

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
OLDEST = (1, 32)  # the oldest Kubernetes that Boardlet runs on
MODULE = Path(__file__).parent / "go"
_NAMES = ("kube-apiserver", "etcd", "kubectl")
_BUILT = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "etcd": "./etcd",
}
_PACKAGES = {"kube-apiserver": 2079, "kubectl": 197, "etcd": 101}  # each on top of the ones before
_BUILD_S = 360.0  # two quiet cores, downloads included


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the control plane's programs are, and where they come from in words."""

    apiserver: Path
    etcd: Path
    kubectl: Path
    origin: str


def find(progress: Progress | None = None) -> Programs:
    """The programs to use; builds them if need be (minutes). Raises `Missing` or `golang.BuildFailed`."""
    chosen = os.environ.get(ASSETS_VARIABLE)
    if chosen:
        return _checked(Path(chosen), f"${ASSETS_VARIABLE}")
    return installed() or built(progress)


def installed() -> Programs | None:
    """The programs on PATH, None if one is not there or too old."""
    paths = [which(name) for name in _NAMES]
    if any(path is None for path in paths):
        return None
    apiserver, etcd, kubectl = (Path(path) for path in paths if path)
    if min(_version([apiserver, "--version"]), _version([kubectl, "version", "--client"])) < OLDEST:
        return None
    return Programs(apiserver, etcd, kubectl, "PATH")


def built(progress: Progress | None = None) -> Programs:
    """The programs out of the cache, built first if they are not there yet."""
    release = kubernetes_release()
    stamp = ldflags(release)
    key = hashlib.sha256("\n".join([*stamp, platform.machine()]).encode())
    for part in ("go.mod", "go.sum", "etcd/main.go"):
        key.update((MODULE / part).read_bytes())

    def build(into: Path) -> None:
        golang.build(MODULE, _BUILT, into, ldflags=stamp, packages=_PACKAGES, progress=progress)

    version = f"{release}-{key.hexdigest()[:12]}"
    if not cache.there("controlplane", version):
        golang.toolchain(MODULE, progress)  # first, because it is a piece of work of its own to tell
    folder = cache.artifact(
        "controlplane",
        version,
        build,
        progress=progress,
        what=f"building Kubernetes {release} (kube-apiserver, kubectl, etcd), once for this machine",
        usual_s=_BUILD_S,
    )
    return Programs(folder / "kube-apiserver", folder / "etcd", folder / "kubectl", "the cache")


def kubernetes_release() -> str:
    """The Kubernetes version that the Go module names, without the v."""
    found = re.search(r"k8s\.io/kubernetes v(\S+)", (MODULE / "go.mod").read_text())
    if found is None:
        raise ValueError("go.mod names no version of k8s.io/kubernetes")
    return found[1]


def _checked(folder: Path, origin: str) -> Programs:
    lacking = [name for name in _NAMES if not (folder / name).is_file()]
    if lacking:
        raise Missing(f"{', '.join(lacking)} in {origin} ({folder})", "put them there, or unset the variable")
    programs = Programs(folder / "kube-apiserver", folder / "etcd", folder / "kubectl", origin)
    version = _version([programs.apiserver, "--version"])
    if version < OLDEST:
        is_, least = (".".join(map(str, numbers)) for numbers in (version, OLDEST))
        raise Missing(f"Kubernetes {least} or newer in {origin} (it has {is_})", "unset the variable to build one")
    return programs


def _version(command: list[Path | str]) -> tuple[int, int]:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def ldflags(release: str) -> list[str]:
    """What stamps a Kubernetes release into its programs at linking."""
    major, minor = release.split(".")[:2]
    stamp = {"gitVersion": f"v{release}", "gitMajor": major, "gitMinor": minor}
    return [f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamp.items()]
