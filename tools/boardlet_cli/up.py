"""`boardlet up`: a site on this machine, and its story; everything is removed in the end, also after a failure."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import broker as brokers
import controlplane
from boardimage import simple
from provision.progress import Progress, for_stream
from rich.console import Console

from boardlet_cli.cluster import CRDS, RBAC, Cluster, KubectlFailed, of_context
from boardlet_cli.site import Site
from boardlet_cli.story import StepFailed, Story

__all__ = ["StepFailed", "up"]

BOARDS: Final = {"greenhouse-1": "k7m2q9xa", "greenhouse-2": "p4w8z1vc", "greenhouse-3": "t9r3n6jb"}


def up(context: str | None, namespace: str, stay: bool | None) -> None:
    """Tell the story, then stay up until Ctrl-C if asked; raises StepFailed, Missing and what kubectl said."""
    # A terminated demo cleans up as an interrupted one does; one in a shell's background starts deaf to Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C, kill, a closed terminal
        signal.signal(number, signal.default_int_handler)
    terminal = sys.stdout.isatty() and os.environ.get("CI") != "true"
    console = Console(highlight=False, soft_wrap=True)
    progress = for_stream()
    began = time.monotonic()
    with ExitStack() as stack:
        broker = brokers.find(progress)
        simple(progress)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="boardlet-")))
        cluster = stack.enter_context(_cluster(folder, context, namespace, progress, console))
        console.print(f"broker: {broker.name} from {broker.origin}")
        # In a cluster with boards of its own these are none of the demo's business.
        own = {"namespaces": json.dumps([cluster.namespace])} if cluster.namespace else {}
        site = stack.enter_context(Site(folder / "site", cluster, broker, own, credentials=True))
        took = time.monotonic() - began
        console.print(f"bridge: up as the service account boardlet-bridge, {took:.1f} s after the start")
        for board_id in BOARDS.values():
            board = site.add_board(board_id)
            board.set_adc(34, 840)
        told = False
        try:
            Story(console, site, BOARDS, began).tell()
            told = True
            if terminal if stay is None else stay:
                _stay(console, cluster, folder)
        except KeyboardInterrupt:
            console.print("\nending; everything that was started is stopped and removed")
            if not told:
                raise


@contextmanager
def _cluster(
    folder: Path, context: str | None, namespace: str, progress: Progress, console: Console
) -> Iterator[Cluster]:
    if context is None:
        programs = controlplane.find(progress)
        with controlplane.ControlPlane(folder / "controlplane", programs) as plane:
            console.print(f"control plane: kube-apiserver and etcd from {programs.origin}, at {plane.url}")
            cluster = Cluster(programs.kubectl, plane.kubectl_env())
            cluster.install()
            yield cluster
        return
    cluster = of_context(context, namespace)
    had_kinds = cluster.run("get", "crd", "boards.boardlet.dev", check=False).returncode == 0
    try:
        cluster.run("create", "namespace", namespace)
    except KubectlFailed as error:
        raise KubectlFailed(
            f"{error}\nthe demo makes its namespace and removes it: name one that is not there, with --namespace"
        ) from error
    console.print(
        f"cluster: context {context}; kubectl speaks with --context {shlex.quote(context)} -n {namespace} below"
    )
    try:
        cluster.install()
        yield cluster
    finally:
        # The bridge that would take the finalizers off is gone by now.
        for name in BOARDS:
            patch = '{"metadata":{"finalizers":null}}'
            cluster.run("patch", "board", name, "--type=merge", "-p", patch, check=False)
        cluster.run("delete", "boards,boardmodels", "--all", "--wait=false", check=False)
        cluster.run("delete", "namespace", namespace, "--wait=false", check=False)
        if not had_kinds:
            for path in (RBAC, *CRDS):
                cluster.run("delete", "-f", str(Path(__file__).parents[2] / path), "--wait=false", check=False)


def _stay(console: Console, cluster: Cluster, folder: Path) -> None:
    console.print("\nEverything stays up until Ctrl-C. In another terminal:")
    kubectl = "kubectl"
    if cluster.context:
        kubectl = shlex.join(["kubectl", "--context", cluster.context, "-n", str(cluster.namespace)])
    else:
        console.print(f"  export KUBECONFIG={shlex.quote(cluster.env['KUBECONFIG'])}")
        console.print(f"  alias kubectl={shlex.quote(shlex.quote(str(cluster.kubectl)))}")
    console.print(f"  {kubectl} get boards -w\n  {kubectl} edit board greenhouse-1")
    console.print(f"  the boards' pins are files: {shlex.quote(str(folder))}/site/*/pins/")
    signal.pause()
