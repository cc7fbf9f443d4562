"""`boardlet approve`: lets a board in that has asked with its site's claim, or turns it away."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from boardlet_cli import sitefile
from boardlet_cli.cluster import Cluster, KubectlFailed
from boardlet_cli.flash_command import of_site
from boardlet_cli.options import Context, Namespace, SiteOption
from boardlet_cli.order import FlashFailed

SHORT: Final = "Let a board in that asks to be enrolled, or turn it away."
EXAMPLES: Final = (
    "Examples:\n\n\b\n"
    "  kubectl get enrollments\n"
    "  boardlet approve a0b765123456-4f5a3c1200ab89de --board greenhouse-7\n"
    "  boardlet approve 4f5a3c1200ab89de --board greenhouse-7 --model greenhouse\n"
    "  boardlet approve a0b765123456-4f5a3c1200ab89de --deny\n\n"
    "The 16 digits are the board's fingerprint, which its console and `boardlet flash --claim` show."
)
DIGITS: Final = 16


def approve(
    enrollment: Annotated[str, typer.Argument(help="Name of the Enrollment, or the fingerprint of its board.")],
    board: Annotated[str, typer.Option(help="The Board that it becomes; created where it is not there.")] = "",
    model: Annotated[
        str | None, typer.Option(help="BoardModel of the Board; default: the site file's, else greenhouse.")
    ] = None,
    board_id: Annotated[str, typer.Option(help="Id of a Board that is created; default: the bridge makes one.")] = "",
    deny: Annotated[bool, typer.Option("--deny", help="Turn it away instead.")] = False,
    site: SiteOption = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Approve or deny an Enrollment: the bridge then gives the board its identity when it asks the next time."""
    if bool(board) == deny:
        raise typer.BadParameter("is needed, or --deny", param_hint="--board")
    settings = sitefile.find(site)
    cluster = of_site(settings, context, namespace)
    found = _find(cluster, enrollment)
    name = found["metadata"]["name"]
    if deny:
        spec: dict[str, Any] = {"approved": False}
    else:
        _must_be_meant(found, enrollment)
        chosen = model or (settings.model if settings else "greenhouse")
        spec = {"approved": True, "boardName": board, "modelRef": {"name": chosen}}
        spec |= {"boardID": board_id} if board_id else {}
    # What was looked at is what is decided on: a change meanwhile is a conflict.
    patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": spec}
    cluster.run("patch", "enrollment", name, "--type=merge", "-p", json.dumps(patch))
    if deny and (sent := found.get("status", {}).get("boardName")):
        print(f"it was sent the identity of Board {sent} before: revoke that too (kubectl describe enrollment {name})")
    print(f"denied {name}" if deny else f"approved {name} as Board {board}: it is let in when it asks the next time")


def _find(cluster: Cluster, enrollment: str) -> dict[str, Any]:
    if len(enrollment) != DIGITS:
        return cluster.get("enrollment", enrollment)
    selector = f"--field-selector=spec.request.fingerprint={enrollment}"
    items = json.loads(cluster.run("get", "enrollments", selector, "-o", "json").stdout)["items"]
    if not items:
        raise KubectlFailed(f"no board with the fingerprint {enrollment} has asked: kubectl get enrollments")
    if len(items) > 1:
        # Whoever has heard its request can repeat it under another hardware number, and would get it decided.
        names = ", ".join(item["metadata"]["name"] for item in items)
        raise KubectlFailed(f"{len(items)} Enrollments have this fingerprint: {names}: name the one with its hardware")
    first: dict[str, Any] = items[0]
    return first


def _must_be_meant(found: dict[str, Any], enrollment: str) -> None:
    reasons = {c["reason"] for c in found.get("status", {}).get("conditions", [])}
    if "Contested" in reasons and enrollment != found["spec"]["request"]["fingerprint"]:
        raise FlashFailed(
            "two boards say that they are this hardware: say the fingerprint that the true one shows (its console, or "
            "`boardlet flash --claim`) instead of the name, and deny the other"
        )
