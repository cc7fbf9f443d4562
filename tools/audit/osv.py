"""What is known against pinned packages, from a server that speaks OSV's API (https://google.github.io/osv.dev/api/)."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ANSWER_S: Final = 20.0
AT_ONCE: Final = 500  # the API takes 1,000
MAX_BYTES: Final = 64 * 1024 * 1024
_PINNED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)")


class Unreachable(Exception):
    """The database gave no answer that can be used; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One pinned dependency."""

    name: str
    version: str


def pinned(lock: Path) -> list[Package]:
    """The packages of a lock file as pip writes it; raises ValueError where a line pins nothing, or there is none."""
    found = []
    for number, line in enumerate(lock.read_text().splitlines(), 1):
        if not line.strip() or line[0] in " \t#":
            continue
        match = _PINNED.match(line)
        if match is None:
            raise ValueError(f"{lock}:{number} pins no version: {line.strip()[:60]!r}")
        found.append(Package(match[1].lower(), match[2]))
    if not found:
        raise ValueError(f"{lock} pins nothing: is it the lock file?")
    return found


def known(packages: Iterable[Package], url: str) -> dict[Package, list[str]]:
    """The identifiers of what is known against each package that something is known of; raises Unreachable."""
    asked = sorted(set(packages))
    found: dict[Package, list[str]] = {}
    for at in range(0, len(asked), AT_ONCE):
        some = asked[at : at + AT_ONCE]
        for package, ids in zip(some, _batch(some, url), strict=True):
            if ids:
                found[package] = ids
    return found


def _batch(packages: list[Package], url: str) -> Iterator[list[str]]:
    queries = [{"package": {"name": p.name, "ecosystem": "PyPI"}, "version": p.version} for p in packages]
    answer = _post(f"{url.rstrip('/')}/v1/querybatch", {"queries": queries})
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != len(packages):
        raise Unreachable(f"{url} answers, and not as OSV does: is it the right address?")
    for result in results:
        try:
            # A package with more than a page of them is bad enough with the first page.
            yield sorted(str(vulnerability["id"]) for vulnerability in (result or {}).get("vulns") or ())
        except (AttributeError, KeyError, TypeError) as error:
            raise Unreachable(f"{url} answers, and not as OSV does: {result!r:.80}") from error


def _post(url: str, body: object) -> Any:
    if not url.startswith(("http://", "https://")):
        raise Unreachable(f"{url} is no address of a web server")
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.loads(answer.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        error.close()
        raise Unreachable(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise Unreachable(f"{url}: {getattr(error, 'reason', error)}") from error
