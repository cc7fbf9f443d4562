"""One node: containerd, kubelet, kube-proxy and DNS in the place `site`, its state in one folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import controlplane
import yaml
from provision.process import NotReady, Process

from . import image, settings
from .cgroup import Cgroup
from .place import Place, link
from .plane import ADDRESS, SERVICES, Plane
from .programs import Programs

CLOUD_SIDE: Final = ADDRESS.rpartition(".")[0]
FIELD_SIDE: Final = "10.201.0"
CUT: Final = """table inet cable {
  chain in { type filter hook input priority 0; iifname "site" drop; }
  chain out { type filter hook output priority 0; oifname "site" drop; }
}
"""
READY_S: Final = 90
IMPORT_S: Final = 180.0


class Node:
    """A cluster of one node in `folder`; not started yet."""

    def __init__(self, folder: Path, programs: Programs, kubernetes: controlplane.Programs) -> None:
        self.folder, self.programs, self.kubernetes = folder, programs, kubernetes
        self.name = f"node-{uuid.uuid4().hex[:6]}"
        self.address = f"{CLOUD_SIDE}.2"
        folder.mkdir(parents=True, exist_ok=True)
        self.cloud, self.field = Place("cloud", folder), Place("field", folder)
        self.site = Place("site", folder, whole=True)
        self.cgroup = Cgroup(f"boardlet-{self.name}")
        self.parts: list[Process] = []

    def start(self) -> None:
        """Bring it up; returns when the node is Ready and the API server answers at its Service."""
        for place in (self.cloud, self.site, self.field):
            place.start()
        link(self.cloud, self.site, CLOUD_SIDE)
        link(self.site, self.field, FIELD_SIDE)
        # A Service's address needs a route before a packet to it is sent anywhere else.
        self.site.run("ip", "route", "add", "default", "via", ADDRESS)
        self.field.run("ip", "route", "add", "default", "via", f"{FIELD_SIDE}.1")
        self.site.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.plane = Plane(self.folder / "plane", self.cloud, self.programs, self.kubernetes)
        self.plane.start()
        self.cgroup.make()
        self._start_parts()
        for state in ("create", "condition=Ready"):
            done = self.plane.kubectl(
                "wait", f"--for={state}", f"node/{self.name}", f"--timeout={READY_S}s", check=False
            )
            if done.returncode:
                raise NotReady(f"node {self.name}, {state}: {done.stderr}")
        self.proxy.wait_until(self._service_answers)

    def _start_parts(self) -> None:
        self.containerd = self._part("containerd", self.programs.containerd.path, "-c", self._containerd_settings())
        self.containerd.start()
        self.containerd.wait_until((self.folder / "containerd.sock").exists)
        self.import_image(self._pause_image())
        user = self.plane.add_user(f"system:node:{self.name}", ["system:nodes"])
        self.kubelet = self._part(
            *("kubelet", self.programs.kubelet, f"--kubeconfig={user}", f"--hostname-override={self.name}"),
            f"--config={self._yaml('kubelet.yaml', settings.kubelet(self.folder, self.address, self.cgroup.name))}",
            *(f"--root-dir={self.folder / 'kubelet'}", f"--cert-dir={self.folder / 'kubelet-pki'}"),
            f"--node-ip={self.address}",
        )
        proxy = settings.proxy(self.plane.add_user("system:kube-proxy"), self.name, self.address)
        self.proxy = self._part("kube-proxy", self.programs.proxy, f"--config={self._yaml('proxy.yaml', proxy)}")
        corefile = self.folder / "Corefile"
        corefile.write_text(settings.corefile(self.address, self.plane.kubeconfig()))
        self.dns = self._part("coredns", self.programs.coredns, f"-conf={corefile}")
        for part in (self.kubelet, self.proxy, self.dns):
            part.start()

    def stop(self) -> None:
        """End all of it; logs stay in the folder."""
        if hasattr(self, "plane"):
            self.plane.stop()
        for place in (self.field, self.site, self.cloud):
            place.stop()
        for part in self.parts:  # ended with their place; this takes note of it
            part.kill()
        self.cgroup.remove()
        for heavy in ("containerd", "containerd-state", "kubelet"):
            shutil.rmtree(self.folder / heavy, ignore_errors=True)

    def import_image(self, archive: Path) -> None:
        """Have the images of a docker archive on the node."""
        command = [*self.site.inside, str(self.programs.containerd.path.with_name("ctr")), "-a", self._socket]
        command += ["-n", "k8s.io", "images", "import", str(archive)]
        subprocess.run(command, env=self._env, check=True, capture_output=True, timeout=IMPORT_S)

    def cut(self) -> None:
        """Pull the cable between control plane and node: packets vanish, and nobody is told."""
        self.cloud.run("nft", "-f", "-", stdin=CUT)

    def heal(self) -> None:
        """Plug it in again."""
        self.cloud.run("nft", "delete", "table", "inet", "cable")

    def log(self) -> str:
        """The end of every part's log, for a test that failed."""
        return "\n".join(f"--- {part.name}\n{part.tail()}" for part in self.parts)

    def __enter__(self) -> Node:
        try:
            self.start()
        except BaseException:
            print(self.log())
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket(self) -> str:
        return str(self.folder / "containerd.sock")

    @property
    def _env(self) -> dict[str, str]:
        # containerd starts its shim by name.
        env = self.programs.containerd.env
        path = f"{self.programs.containerd.path.parent}:{env.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
        return {**env, "PATH": path}

    def _part(self, name: str, program: Path, *arguments: str | Path) -> Process:
        argv = [*self.site.inside, program, *arguments]
        part = Process(name, argv, log=self.folder / f"{name}.log", env=self._env, cwd=self.folder)
        self.parts.append(part)
        return part

    def _yaml(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content, default_flow_style=False))
        return path

    def _containerd_settings(self) -> Path:
        networks = self.folder / "cni"
        networks.mkdir()
        (networks / "10-boardlet.conflist").write_text(json.dumps(settings.network(self.folder)))
        path = self.folder / "containerd.toml"
        path.write_text(settings.containerd(self.folder, self.programs.plugins))
        return path

    def _pause_image(self) -> Path:
        return image.single(self.programs.pause, settings.PAUSE, self.folder / "pause.tar")

    def _service_answers(self) -> bool:
        ask = [str(self.kubernetes.kubectl), f"--server=https://{SERVICES}.1", "get", "--raw", "/livez"]
        command = [*self.site.net, *ask, "--request-timeout=2s"]
        env = self.plane.kubectl_env()
        return subprocess.run(command, env=env, capture_output=True, timeout=60, check=False).returncode == 0
