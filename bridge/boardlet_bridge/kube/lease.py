"""Leases (coordination.k8s.io/v1) as replicas of the bridge use them: one each, which says who lives, by which view.

What stands in one may have been written by anybody with rights in its namespace: what is no lease of ours is nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

SITE: Final = "boardlet.dev/site"  # label: replicas of one site have the same
BROKER: Final = "boardlet.dev/broker"  # annotation: AWAY where its replica does not reach the broker
AWAY: Final = "away"
VIEW: Final = "boardlet.dev/replicas"  # annotation: the replicas by which this one acts
MAX_NAME: Final = 253
ENDING: Final = 5  # of the name that a replica takes whose own is taken: a hyphen and four hexadecimal digits
MAX_DURATION_S: Final = 3600
MAX_VIEW: Final = 64  # replicas in a view; more is no view of ours
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Lease:
    """One replica's lease as the API server has it."""

    replica: str
    holder: str
    version: str
    duration_s: float
    view: frozenset[str]
    acquired: str
    """When its process began, RFC 3339 with microseconds."""
    away: bool = False
    """Whether it says that it does not reach the broker."""


def prefix(site: str) -> str:
    """How the names of a site's leases begin; the replica's name follows."""
    return f"boardlet-{site}-"


def tidy(name: str, site: str) -> str:
    """A host's name as a part of a lease's, as RFC 1123 has it, with room for an ending."""
    kept = re.sub(r"[^-a-z0-9.]+", "-", name.lower())
    kept = re.sub(r"[-.]*\.[-.]*", ".", kept)  # each part between dots begins and ends with a letter or digit
    return kept[: MAX_NAME - len(prefix(site)) - ENDING].strip("-.") or "bridge"


def read(obj: Mapping[str, Any], site: str) -> Lease | None:
    """The lease in an object; None where it is no replica's."""
    meta, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    name, began = str(meta.get("name")), prefix(site)
    duration = spec.get("leaseDurationSeconds")
    if not name.startswith(began) or not isinstance(duration, int) or not 0 < duration <= MAX_DURATION_S:
        return None
    notes = meta.get("annotations") or {}
    view, away = str(notes.get(VIEW, "")).split(","), notes.get(BROKER) == AWAY
    sane = len(view) <= MAX_VIEW and all(_NAME.fullmatch(part) for part in view)
    version, holder = str(meta.get("resourceVersion")), str(spec.get("holderIdentity") or "")
    acquired, seen = str(spec.get("acquireTime") or ""), frozenset(view) if sane else frozenset()
    return Lease(name.removeprefix(began), holder, version, duration, seen, acquired, away)


def body(namespace: str, site: str, lease: Lease) -> dict[str, Any]:
    """The object that says so; an empty version means that there is none yet."""
    meta: dict[str, Any] = {
        "name": prefix(site) + lease.replica,
        "namespace": namespace,
        "labels": {SITE: site},
        "annotations": {VIEW: ",".join(sorted(lease.view)), **({BROKER: AWAY} if lease.away else {})},
    }
    if lease.version:
        meta["resourceVersion"] = lease.version
    spec = {
        "holderIdentity": lease.holder,
        "leaseDurationSeconds": int(lease.duration_s),
        "acquireTime": lease.acquired,
        "renewTime": micro(datetime.now(UTC)),
    }
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def micro(when: datetime) -> str:
    """A time as the API server writes it."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
