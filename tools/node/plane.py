"""The control plane of a node: API server and etcd as ever, with controllers and scheduler, in a place of its own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final

import controlplane
from controlplane import ControlPlane
from provision.process import Process

from .place import Place
from .programs import Programs

ADDRESS: Final = "10.200.0.1"
SERVICES: Final = "10.96.0"  # the first address is the API server's own Service
_REPLACED: Final = {
    "--bind-address",
    "--advertise-address",
    "--authorization-mode",
    "--disable-admission-plugins",
    "--endpoint-reconciler-type",
}


class Plane(ControlPlane):
    """Where a whole cluster's control plane is: at an address that its nodes reach, with all admission on."""

    def __init__(self, folder: Path, place: Place, programs: Programs, kubernetes: controlplane.Programs) -> None:
        self._place = place
        folder.mkdir(parents=True, exist_ok=True)
        kubectl = place.wrapper(folder / "kubectl", kubernetes.kubectl)
        super().__init__(folder, replace(kubernetes, kubectl=kubectl))
        for process in (self.etcd, self.apiserver):
            process.argv = [*place.inside, *process.argv]
        self.controllers = self._process(
            *(programs.controller_manager, "--use-service-account-credentials=true"),
            f"--service-account-private-key-file={folder / 'pki/service-account.key'}",
            f"--root-ca-file={folder / 'pki/ca.crt'}",
        )
        self.scheduler = self._process(programs.scheduler)

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{self.port}"

    def start(self) -> None:
        """Start all four."""
        super().start()
        self.controllers.start()
        self.scheduler.start()

    def stop(self) -> None:
        """Stop all four."""
        for process in (self.scheduler, self.controllers):
            process.stop()
        super().stop()

    def _process(self, program: Path, *more: str | Path) -> Process:
        user = self.add_user(f"system:{program.name}")
        arguments = [f"--kubeconfig={user}", "--bind-address=127.0.0.1", "--leader-elect=false", *more]
        arguments.append("--authentication-skip-lookup=true")
        command = [*self._place.inside, program, *arguments]
        return Process(program.name, command, log=self.folder / f"{program.name}.log")

    def _ready(self) -> bool:
        try:
            for path in ("/readyz", "/api/v1/namespaces/default"):
                self.kubectl("get", "--raw", path, "--request-timeout=5s")
        except subprocess.CalledProcessError:  # not listening yet, or not ready yet
            return False
        return True

    def _write_keys(self) -> None:
        super()._write_keys()
        hosts = [ADDRESS, f"{SERVICES}.1", "kubernetes.default.svc"]
        self._authority.server("kube-apiserver", hosts).write(self.folder / "pki", "apiserver")

    def _apiserver_arguments(self, etcd_port: int) -> list[str | Path]:
        folder = self.folder / "pki"
        kept = [
            argument
            for argument in super()._apiserver_arguments(etcd_port)
            if str(argument).partition("=")[0] not in _REPLACED
        ]
        return [
            *kept,
            f"--bind-address={ADDRESS}",
            f"--advertise-address={ADDRESS}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={folder / 'admin.crt'}",
            f"--kubelet-client-key={folder / 'admin.key'}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
