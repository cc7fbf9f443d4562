"""Who signs a broker's certificate, in the form in which a board holds it: DER, one certificate after the other."""

from __future__ import annotations

import re
import ssl
from typing import Final

CA: Final = "ca.der"
"""The file on the board."""
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def der(pem: bytes) -> bytes:
    """The certificates of a PEM file, as ca.crt of a Secret; raises ValueError where there is none."""
    found = [ssl.PEM_cert_to_DER_cert(text) for text in _PEM.findall(pem.decode("ascii", errors="replace"))]
    if not found:
        raise ValueError("there is no PEM certificate in it")
    return b"".join(found)
