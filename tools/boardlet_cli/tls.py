"""TLS between boards and broker: what a board is told of it, and whether boards will take the broker for theirs."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from boardimage.authority import der

PORT: Final = 8883
PSK_PORT: Final = 8884
PSK: Final = "psk"
NTP: Final = "pool.ntp.org"
_CONNECT_S: Final = 5.0


class TlsError(Exception):
    """TLS with the broker cannot be had like this; the message says the cause and the next step."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How a board knows its broker."""

    authority: bytes | None = field(repr=False)
    """Certificates (PEM) of who signs the broker's, each of which a board trusts; None: both know the board's key."""
    name: str | None = None
    """What the broker's certificate is for; None: the host that the board connects to."""
    ntp: str = NTP
    """Whom a board asks that does not know the time: a certificate has dates."""

    @property
    def port(self) -> int:
        """The usual one."""
        return PSK_PORT if self.authority is None else PORT

    @property
    def words(self) -> str:
        """For a plan."""
        return "by TLS with a shared key" if self.authority is None else "by TLS"

    @property
    def trusted(self) -> bytes:
        """What the board is to hold, DER; b"" if it needs none."""
        return b"" if self.authority is None else der(self.authority)

    def config(self, existing: Mapping[str, Any]) -> dict[str, Any]:
        """`tls` of the board's config.json; `existing` is the one that it has, which keeps its day."""
        if self.authority is None:
            return {PSK: True}
        kept = existing.get("tls")
        since = kept.get("since") if isinstance(kept, dict) else None
        # A clock that shows an earlier day than this was not set. Yesterday: the host's own may be a little ahead.
        day = (datetime.now(UTC) - timedelta(days=1)).date()
        own = {"since": since or [day.year, day.month, day.day], "ntp": self.ntp}
        return own | ({"name": self.name} if self.name else {})


def load(authority: Path, name: str | None, ntp: str | None) -> Tls:
    """As options and site file have it; raises TlsError for a file that holds no certificate."""
    try:
        made = Tls(authority.read_bytes(), name, ntp or NTP)
        ssl.create_default_context(cadata=made.trusted)
    except (OSError, ValueError) as error:
        raise TlsError(f"{authority} is no authority's certificate ({error}): it is `ca.crt` of the Secret") from error
    return made


def connect(host: str, port: int, tls: Tls | None) -> socket.socket:
    """A connection as a board would make it; raises OSError, or TlsError where boards would refuse the broker."""
    raw = socket.create_connection((host, port), _CONNECT_S)
    if tls is None or tls.authority is None:  # not every Python's ssl knows shared keys: the port alone is looked at
        return raw
    context = ssl.create_default_context(cadata=tls.trusted)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        return context.wrap_socket(raw, server_hostname=tls.name or host)
    except ssl.SSLCertVerificationError as error:
        raise TlsError(
            f"boards would refuse the broker at {host}:{port} ({error.verify_message}): mend --broker-ca or "
            "--broker-name, or renew its certificate"
        ) from error
    except OSError as error:
        raise TlsError(f"no TLS with {host}:{port} ({error}): is that the broker's port for TLS?") from error
    finally:
        raw.close()
