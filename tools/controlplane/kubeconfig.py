"""A kubeconfig with everything inside: one server, one user, no other file needed."""

from __future__ import annotations

import base64

import yaml

from .pki import Pair

CONTEXT = "boardlet"


def write(url: str, authority: bytes, user: str, pair: Pair) -> bytes:
    """The kubeconfig of `user` with client certificate `pair` at the API server `url`, trusting only `authority`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        "clusters": [{"name": CONTEXT, "cluster": {"server": url, "certificate-authority-data": _data(authority)}}],
        "users": [{"name": user, "user": {f"client-{k}-data": _data(v) for k, v in _pem(pair).items()}}],
    }
    return yaml.safe_dump(config, sort_keys=False).encode()


def _pem(pair: Pair) -> dict[str, bytes]:
    return {"certificate": pair.certificate, "key": pair.key}


def _data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
