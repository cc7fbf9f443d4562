"""How to reach the API server: one description for kopf's watches and for our own client.

From a kubeconfig (token, token file, client certificate) or, in a pod, from the service account's files. Tokens in
files are read anew whenever a connection is described, because the kubelet rotates them; so is a pod's authority, when
the API server shows a certificate of another one.
"""

from __future__ import annotations

import base64
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from boardlet_bridge.core.store import StoreInvalid

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConnectionInvalid(StoreInvalid):
    """The API server cannot be reached as it is described; the message says where the description is wrong."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An API server and the identity to use there; PEM data as text."""

    server: str
    ca: str | None = None
    insecure: bool = False
    certificate: str | None = None
    key: str | None = None
    token: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    namespace: str = "default"

    def bearer(self) -> str | None:
        """The token of now, None where a certificate speaks."""
        return self.token_file.read_text().strip() if self.token_file else self.token

    def authority(self) -> str | None:
        """The cluster's authority of now, which the kubelet keeps in a pod; None for the system's."""
        with suppress(OSError):
            return self.ca_file.read_text() if self.ca_file else self.ca
        return self.ca

    def trust_anew(self, context: ssl.SSLContext) -> None:
        """Have a context of before trust the authority of now too, where that can change."""
        if self.ca_file is not None:
            with suppress(ssl.SSLError, ValueError):  # half written: the next failure comes here again
                context.load_verify_locations(cadata=self.authority())

    def ssl_context(self) -> ssl.SSLContext:
        """Trusts the cluster's authority and shows the client certificate; raises ConnectionInvalid."""
        try:
            context = ssl.create_default_context(cadata=self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise ConnectionInvalid(f"the authority of {self.server} is no PEM certificate: {error}") from error
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate and self.key:
            self._show(context, self.certificate + "\n" + self.key)
        return context

    def _show(self, context: ssl.SSLContext, pair: str) -> None:
        # ssl takes a certificate from a file only. A token needs none, so that a pod needs nothing to write to.
        try:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "client.pem"
                path.touch(mode=0o600)
                path.write_text(pair)
                context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise ConnectionInvalid(f"the client certificate for {self.server} is not PEM: {error}") from error
        except OSError as error:
            raise ConnectionInvalid(f"the client certificate has to pass through a temporary file: {error}") from error


def find(kubeconfig: Path | None = None, context: str | None = None) -> Connection:
    """From this file, else from the pod's service account, else from $KUBECONFIG or ~/.kube/config."""
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return in_cluster(os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])
    if kubeconfig is None:
        named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        kubeconfig = Path(named) if named else Path.home() / ".kube/config"
    return from_file(kubeconfig, context)


def in_cluster(host: str, port: str) -> Connection:
    """The pod's own service account."""
    try:
        return Connection(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            ca=(SERVICE_ACCOUNT / "ca.crt").read_text(),
            ca_file=SERVICE_ACCOUNT / "ca.crt",
            token_file=SERVICE_ACCOUNT / "token",
            namespace=(SERVICE_ACCOUNT / "namespace").read_text().strip(),
        )
    except OSError as error:
        raise ConnectionInvalid(
            f"no service account in this pod ({error}): set automountServiceAccountToken"
        ) from error


def from_file(path: Path, context: str | None = None) -> Connection:
    """One context of a kubeconfig; raises ConnectionInvalid."""
    try:
        config = yaml.safe_load(path.read_text())
        if not isinstance(config, dict):
            raise ValueError("it is empty, or no kubeconfig")
        chosen = context or config.get("current-context")
        if not chosen:
            raise ValueError("it has no current-context: name one with --context")
        names = _named(config, "context", chosen)
        cluster = _named(config, "cluster", names["cluster"])
        user = _named(config, "user", names["user"])
        return _connection(path, names, cluster, user)
    except OSError as error:
        raise ConnectionInvalid(f"cannot read the kubeconfig: {error}") from error
    except KeyError as error:
        raise ConnectionInvalid(f"kubeconfig {path}: {error} is missing") from error
    except (yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
        raise ConnectionInvalid(f"kubeconfig {path}: {' '.join(str(error).split())}") from error


def _named(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    entries = config.get(f"{kind}s") or ()
    for entry in entries:
        if entry["name"] == name:
            return entry.get(kind) or {}
    there = ", ".join(str(entry["name"]) for entry in entries) or "none"
    raise ValueError(f"it has no {kind} {name!r}, there is {there}")


def _connection(path: Path, names: dict[str, Any], cluster: dict[str, Any], user: dict[str, Any]) -> Connection:
    if "exec" in user or "auth-provider" in user:
        raise ConnectionInvalid(
            f"kubeconfig {path}: exec plugins are not run by the bridge: give it a service account's token "
            "(kubectl create token boardlet-bridge -n boardlet-system)"
        )
    if not str(cluster["server"]).startswith(("https://", "http://")):
        raise ValueError(f"server {cluster['server']!r} must begin with https://")
    token_file = user.get("tokenFile")
    return Connection(
        server=cluster["server"],
        ca=_pem(path, cluster, "certificate-authority"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        certificate=_pem(path, user, "client-certificate"),
        key=_pem(path, user, "client-key"),
        token=user.get("token"),
        token_file=(path.parent / token_file) if token_file else None,
        namespace=names.get("namespace") or "default",
    )


def _pem(path: Path, entry: dict[str, Any], key: str) -> str | None:
    if f"{key}-data" in entry:
        return base64.b64decode(str(entry[f"{key}-data"])).decode()
    if key in entry:
        return (path.parent / str(entry[key])).read_text()
    return None
