"""One control plane on loopback: etcd, a kube-apiserver over it, RBAC on; all its state in one folder.

The ports are chosen once, so the API server comes back where it was after a stop, a restart, or a restore of etcd.
etcd does not sync to disk: a power cut of the developer's machine is not among what this control plane survives.
The API server is stopped before etcd, because it waits for an etcd that is gone.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from provision.process import Process, free_port
from provision.progress import Progress

from . import kubeconfig, pki
from .programs import Programs, find

ADMIN = "admin"
_ADMINS = "system:masters"  # the group that RBAC lets through
_STOP_S = 8.0  # an API server with watches open needs 1–2 s
_KUBECTL_S = 120.0
_ANSWER_S = 5.0  # of one readiness request


class ControlPlane:
    """A Kubernetes control plane whose state is in `folder`; not started yet."""

    def __init__(self, folder: Path, programs: Programs | None = None) -> None:
        self.folder = folder
        self.programs = programs or find()
        self.port = free_port()
        self._authority = pki.Authority()
        self._users: dict[str, Path] = {}
        for part in ("pki", "users", "snapshots"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._write_keys()
        self.add_user(ADMIN, [_ADMINS])
        etcd_port, peer_port = free_port(), free_port()
        self.etcd = Process("etcd", self._etcd_arguments(etcd_port, peer_port), log=folder / "etcd.log")
        self.apiserver = Process("kube-apiserver", self._apiserver_arguments(etcd_port), log=folder / "apiserver.log")

    @property
    def url(self) -> str:
        """Where the API server is."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start etcd and the API server; returns when the API is ready (2–3 s). Raises `Died` or `NotReady`."""
        self.etcd.start()
        self.start_apiserver()

    def stop(self) -> None:
        """Stop both; what they stored stays in the folder."""
        self.stop_apiserver()
        self.etcd.stop(_STOP_S)

    def start_apiserver(self) -> None:
        """Start the API server where it was before; returns when it is ready."""
        self.apiserver.start()
        self.wait_ready()

    def stop_apiserver(self) -> None:
        """Stop the API server; etcd goes on."""
        self.apiserver.stop(_STOP_S)

    def restart_apiserver(self) -> None:
        """Stop and start the API server; returns when it is ready again."""
        self.stop_apiserver()
        self.start_apiserver()

    def pause(self) -> None:
        """Freeze the API server: connections stay open, and nothing is answered."""
        self.apiserver.pause()

    def resume(self) -> None:
        """Let a paused API server go on."""
        self.apiserver.resume()

    def wait_ready(self) -> None:
        """Wait until the API server says that it is ready and its own namespaces are there."""
        self.apiserver.wait_until(self._ready)

    def snapshot(self) -> Path:
        """Keep a copy of all objects as they are now, for `restore`; both servers are stopped for it (3–5 s)."""
        kept = self.folder / "snapshots" / str(len(list((self.folder / "snapshots").iterdir())))
        self.stop()
        shutil.copytree(self._data, kept)
        self.start()
        return kept

    def restore(self, snapshot: Path) -> None:
        """Go back to what `snapshot` returned, as a cluster restored from a backup; resourceVersions go back too."""
        self.stop()
        shutil.rmtree(self._data)
        shutil.copytree(snapshot, self._data)
        self.start()

    def add_user(self, name: str, groups: Sequence[str] = ()) -> Path:
        """Make a user, also while the API server runs, and return a kubeconfig for it; what it may do is up to RBAC.

        A service account's own name (`system:serviceaccount:NAMESPACE:NAME`) makes a user with that account's rights.
        """
        path = self.folder / "users" / f"{name.replace(':', '_')}.kubeconfig"
        pair = self._authority.user(name, groups)
        pki.write_private(path, kubeconfig.write(self.url, self._authority.certificate, name, pair))
        self._users[name] = path
        return path

    def kubeconfig(self, user: str = ADMIN) -> Path:
        """The kubeconfig of a user made before; raises `KeyError` for another."""
        return self._users[user]

    def kubectl(
        self,
        *arguments: str,
        user: str = ADMIN,
        stdin: str | None = None,
        check: bool = True,
        timeout_s: float = _KUBECTL_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as `user` and return what it said; with `check`, raises `CalledProcessError` on failure."""
        return subprocess.run(
            [str(self.programs.kubectl), *arguments],
            env=self.kubectl_env(user),
            input=stdin or "",
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout_s,
        )

    def kubectl_env(self, user: str = ADMIN) -> dict[str, str]:
        """The environment in which a kubectl speaks to this control plane as `user` and leaves nothing at home."""
        own = {"KUBECONFIG": str(self.kubeconfig(user)), "KUBECACHEDIR": str(self.folder / "kubectl-cache")}
        return {**os.environ, **own}

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _data(self) -> Path:
        return self.folder / "etcd"

    def _ready(self) -> bool:
        context = ssl.create_default_context(cadata=self._authority.certificate.decode())
        context.load_cert_chain(self.folder / "pki/admin.crt", self.folder / "pki/admin.key")
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=_ANSWER_S, context=context)
        try:
            for path in ("/readyz", "/api/v1/namespaces/default"):
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    return False
        except (OSError, HTTPException):  # not listening yet, or not answering yet: that is what is waited for
            return False
        finally:
            connection.close()
        return True

    def _write_keys(self) -> None:
        folder = self.folder / "pki"
        (folder / "ca.crt").write_bytes(self._authority.certificate)
        self._authority.server("kube-apiserver", ["127.0.0.1", "localhost"]).write(folder, "apiserver")
        self._authority.user(ADMIN, [_ADMINS]).write(folder, ADMIN)
        pki.write_private(folder / "service-account.key", pki.signing_key())

    def _etcd_arguments(self, port: int, peer_port: int) -> list[str | Path]:
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        return [
            self.programs.etcd,
            f"--data-dir={self._data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _apiserver_arguments(self, etcd_port: int) -> list[str | Path]:
        folder = self.folder / "pki"
        return [
            self.programs.apiserver,
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={folder / 'apiserver.crt'}",
            f"--tls-private-key-file={folder / 'apiserver.key'}",
            f"--client-ca-file={folder / 'ca.crt'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'service-account.key'}",
            f"--service-account-signing-key-file={folder / 'service-account.key'}",
            "--disable-admission-plugins=ServiceAccount",  # nothing here makes the accounts that it waits for
            "--endpoint-reconciler-type=none",
        ]


@contextmanager
def running(programs: Programs | None = None, progress: Progress | None = None) -> Iterator[ControlPlane]:
    """A control plane that is ready, in a folder of its own that is removed in the end."""
    chosen = programs or find(progress)
    with TemporaryDirectory(prefix="boardlet-controlplane-") as folder, ControlPlane(Path(folder), chosen) as plane:
        yield plane
