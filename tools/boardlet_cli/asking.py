"""A board that was flashed with a claim alone: its fingerprint, and whether it has asked to come in."""

from __future__ import annotations

import time
from typing import Final

from boardlet_wire import claim

from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.identity import Identity
from boardlet_cli.order import NeverReady, Order
from boardlet_cli.report import Report

_LOOK_S: Final = 0.5


def fingerprint(secret: str) -> str:
    """What the board's Enrollment shows too: 16 hex digits."""
    return claim.fingerprint(claim.x25519(bytes.fromhex(secret), claim.BASE))


def state(cluster: Cluster, secret: str) -> str:
    """What has become of a board that asks, in words; raises KubectlFailed."""
    selector = f"--field-selector=spec.request.fingerprint={fingerprint(secret)}"
    path = "jsonpath={range .items[*]}{.metadata.name}: {.status.conditions[0].message}{end}"
    return cluster.run("get", "enrollments", selector, "-o", path).stdout or "it has not asked yet"


def line(order: Order, identity: Identity) -> str:
    """The plan's line on who the board will be."""
    wifi = f"Wi-Fi {order.wifi[0]}, " if order.wifi else ""
    shown = f"fingerprint {fingerprint(identity.secret)}"
    return f"no identity, claim {order.claim}, {shown}, {wifi}{order.broker}"


def wait(identity: Identity, port: str, cluster: Cluster, wait_s: int, report: Report) -> str:
    """The name of the board's Enrollment once it has asked; raises NeverReady or KubectlFailed."""
    report.step(f"reset; waiting up to {wait_s} s until the board asks to come in")
    until = time.monotonic() + wait_s
    selector = f"--field-selector=spec.request.fingerprint={fingerprint(identity.secret)}"
    while True:
        try:
            found = cluster.run("get", "enrollments", selector, "-o", "name").stdout.split()
        except KubectlFailed as error:
            raise NeverReady(f"the board is flashed, but nobody can tell whether it asks: {error}") from error
        if found:
            return found[0].rpartition("/")[2]
        if time.monotonic() >= until:
            raise NeverReady(
                f"the board is flashed, but has not asked in {wait_s} s: is enrolment on at the bridge, in this "
                f"namespace (docs/enrolment.md), and is the board on its network? Its console tells: "
                f"mpremote connect {port}"
            )
        time.sleep(_LOOK_S)


def next_step(identity: Identity, cluster: Cluster) -> str:
    """What a person does then."""
    where = f" --namespace {cluster.namespace}" if cluster.namespace else ""
    return f"It asks. Go on with: boardlet approve {fingerprint(identity.secret)}{where} --board NAME"
