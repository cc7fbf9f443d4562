"""A site's settings, typed once: where its broker is, its network, its root key; in a YAML file, its secrets apart.

Secrets are in files beside it that only their owner may read, or in a Secret of the cluster (keys `root.key`, 64 hex
digits, and `wifi-password`). They are read when they are needed, and are nowhere in a repr, an argument or a report.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml
from boardlet_bridge.core.root_key import KEY_BYTES, RootKeyInvalid, RootKeys, parse

from boardlet_cli import tls
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.tls import Tls

VARIABLE: Final = "BOARDLET_SITE"
NAME: Final = "site.yaml"
MQTT_PORT: Final = 1883
ROOT_KEY: Final = "root.key"
WIFI_PASSWORD: Final = "wifi-password"  # noqa: S105 - its name, not itself


class SiteError(Exception):
    """The site's settings cannot be used; the message names the file or Secret and the next step."""


@dataclass(frozen=True, slots=True)
class SiteFile:
    """What the file says; everything but the broker may be left out."""

    broker: str
    """HOST or HOST:PORT, as boards reach it."""
    model: str = "greenhouse"
    """BoardModel of new Boards."""
    namespace: str | None = None
    context: str | None = None
    wifi: str | None = None
    """Name of the network."""
    root_key_file: str | None = None
    """Relative to the site file."""
    wifi_password_file: str | None = None
    secret: str | None = None
    """NAMESPACE/NAME of a Secret with the keys root.key and wifi-password, instead of the two files."""
    broker_ca_file: str | None = None
    """Who signs the broker's certificate (PEM): boards speak TLS with it. Relative to the site file."""
    broker_tls: str | None = None
    """`psk`: boards speak TLS by keys of their own, which the broker knows, instead of a certificate."""
    broker_name: str | None = None
    """What that certificate is for, if not for the host."""
    ntp: str | None = None
    """Whom boards ask that do not know the time, which TLS needs."""
    path: Path = Path(NAME)
    """Where it was read."""

    def tls(self) -> Tls | None:
        """How boards know their broker, None where they speak without TLS; raises TlsError."""
        if self.broker_tls is not None:
            return Tls(None)
        if self.broker_ca_file is None:
            return None
        return tls.load(self.path.parent / self.broker_ca_file, self.broker_name, self.ntp)

    def root_keys(self, cluster: Cluster) -> RootKeys:
        """The site's root keys, the newest first; raises SiteError."""
        if self.root_key_file:
            return keys_of(self.path.parent / self.root_key_file)
        if self.secret:
            return _keys(self._from_secret(cluster)[ROOT_KEY].decode(errors="replace"), f"{ROOT_KEY} of {self.secret}")
        raise SiteError(f"{self.path} names neither rootKeyFile nor secret: add one, or say --root-key")

    def wifi_password(self, cluster: Cluster) -> str:
        """Of the network, "" for an open one; raises SiteError."""
        if self.wifi_password_file:
            return text_of(self.path.parent / self.wifi_password_file)
        if self.secret:
            return self._from_secret(cluster).get(WIFI_PASSWORD, b"").decode(errors="replace")
        return ""

    def _from_secret(self, cluster: Cluster) -> dict[str, bytes]:
        assert self.secret is not None
        namespace, _, name = self.secret.partition("/")
        try:
            found = cluster.run("get", "secret", name, "-n", namespace, "-o", "json").stdout
            data = {key: base64.b64decode(value) for key, value in json.loads(found).get("data", {}).items()}
        except (KubectlFailed, binascii.Error) as error:
            raise SiteError(
                f"cannot read the Secret {self.secret}: {error}: `boardlet site init --secret` makes it"
            ) from error
        if ROOT_KEY not in data:
            raise SiteError(f"the Secret {self.secret} has no {ROOT_KEY}: `boardlet site init --secret` makes it")
        return data


# In YAML as Kubernetes writes names, in Python as Python does.
_YAML: Final = {
    "rootKeyFile": "root_key_file",
    "wifiPasswordFile": "wifi_password_file",
    "brokerCAFile": "broker_ca_file",
    "brokerTLS": "broker_tls",
    "brokerName": "broker_name",
    **{name: name for name in ("broker", "model", "namespace", "context", "wifi", "secret", "ntp")},
}


def find(chosen: Path | None) -> SiteFile | None:
    """The file that is named, or $BOARDLET_SITE, ./site.yaml, ~/.config/boardlet/site.yaml; raises SiteError."""
    named = chosen or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        return load(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "boardlet" / NAME
    return next((load(path) for path in (Path(NAME), home) if path.is_file()), None)


def load(path: Path) -> SiteFile:
    """Read a site file; raises SiteError."""
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SiteError(f"cannot read the site file: {error}: `boardlet site init` writes one") from error
    if not isinstance(raw, dict):
        raise SiteError(f"{path} is no mapping: `boardlet site init` writes one")
    unknown = sorted(str(name) for name in raw if name not in _YAML)
    if unknown:
        raise SiteError(f"{path}: {', '.join(unknown)} is not known; it may have {', '.join(sorted(_YAML))}")
    wrong = [name for name, value in raw.items() if not isinstance(value, str)]
    if wrong or "broker" not in raw:
        raise SiteError(f"{path}: {wrong[0] if wrong else 'broker'} must be text, as `broker: 10.0.0.5:1883`")
    address(raw["broker"], str(path))
    if raw.get("secret") is not None and raw["secret"].count("/") != 1:
        raise SiteError(f"{path}: secret must be NAMESPACE/NAME")
    if raw.get("brokerTLS", tls.PSK) != tls.PSK or ("brokerTLS" in raw and "brokerCAFile" in raw):
        raise SiteError(f"{path}: brokerTLS can be {tls.PSK} alone, and only without brokerCAFile")
    return SiteFile(**{_YAML[name]: value for name, value in raw.items()}, path=path)


def dump(site: SiteFile) -> str:
    """The file's text."""
    given = {name: getattr(site, attribute) for name, attribute in _YAML.items()}
    order = [_YAML_NAME[field.name] for field in fields(site) if field.name in _YAML_NAME]
    return yaml.safe_dump({name: given[name] for name in order if given[name] is not None}, sort_keys=False)


_YAML_NAME: Final = {attribute: name for name, attribute in _YAML.items()}


def address(broker: str, whose: str, usual: int = MQTT_PORT) -> tuple[str, int]:
    """Host and port of HOST or HOST:PORT, without one the usual; raises SiteError."""
    try:
        parts = urlsplit(f"//{broker}")
        host, number = parts.hostname, parts.port or usual
    except ValueError:
        host, number = None, 0
    if not host or parts.netloc != broker or "@" in broker or broker.endswith(":"):
        raise SiteError(f"{whose}: {broker!r} is not HOST or HOST:PORT")
    return host, number


def keys_of(path: Path) -> RootKeys:
    """The root keys in a file, the newest first; raises SiteError."""
    return _keys(text_of(path), str(path))


def text_of(path: Path) -> str:
    """A secret in a file, without the line's end; raises SiteError."""
    try:
        return path.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"cannot read {path}: {error}") from error


def new_key() -> str:
    """A root key for a new site, as it is written."""
    return secrets.token_hex(KEY_BYTES)


def fingerprint(key: bytes) -> str:
    """What tells two keys apart and nothing of them: 8 hex digits of an HMAC."""
    return hmac.new(key, b"boardlet fingerprint", hashlib.sha256).hexdigest()[:8]


def write_secret_file(path: Path, text: str) -> None:
    """A new file that only its owner may read, from the first moment; raises SiteError where there is one already."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text + "\n")
    except OSError as error:
        raise SiteError(f"cannot write {path}: {error}") from error


def secret_object(name: str, namespace: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The Secret for kubectl's standard input."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)}


def _keys(text: str, whose: str) -> RootKeys:
    try:
        return parse(text)
    except RootKeyInvalid as error:
        raise SiteError(f"{whose}: {error}; `boardlet site init` makes a new site's key") from error
