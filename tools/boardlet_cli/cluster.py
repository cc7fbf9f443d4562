"""A cluster that kubectl reaches: the demo's own control plane, or a context of the user's kubeconfig.

The bridge gets a kubeconfig of its own with a token of its service account, never the user's rights.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which
from typing import Any, Final

import yaml
from provision.missing import Missing

ROOT: Final = Path(__file__).parents[2]
CRDS: Final = ("crds/boardmodels.yaml", "crds/boards.yaml", "crds/enrollments.yaml")
RBAC: Final = "bridge/deploy/rbac.yaml"
ACCOUNT: Final = "boardlet-bridge"
SYSTEM: Final = "boardlet-system"
OLDEST: Final = (1, 32)
LASTS: Final = "24h"  # a demo that is left open over night still works in the morning
KUBECTL_S: Final = 90.0
KLOG: Final = re.compile(r"[IWEF]\d{4} \d\d:")


class KubectlFailed(Exception):
    """kubectl did not do what was asked; the message is its own."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kubectl with the environment and context that lead to one cluster and namespace."""

    kubectl: Path
    env: Mapping[str, str]
    context: str | None = None
    namespace: str | None = None
    """Where objects without a namespace of their own are; None for the context's."""

    def run(
        self, *arguments: str, stdin: str = "", check: bool = True, timeout_s: float = KUBECTL_S
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; raises KubectlFailed with its words if it fails and `check` is set."""
        command = [*self._command(named="-n" in arguments), *arguments]
        try:
            done = subprocess.run(
                command, env=self.env, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: no answer after {timeout_s:.0f} s") from error
        if check and done.returncode:
            raise KubectlFailed(_words(done.stderr) or done.stdout.strip())
        return done

    def whereabouts(self) -> tuple[str, str]:
        """The context and the address of the API server, each "" where kubectl's configuration does not say."""
        said = self.run("config", "view", "--minify", "-o", "json", check=False).stdout
        try:
            view = json.loads(said)
            return str(view["current-context"]), str(view["clusters"][0]["cluster"]["server"])
        except (ValueError, KeyError, TypeError, IndexError):
            return self.context or "", ""

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object as JSON; raises KubectlFailed."""
        found: dict[str, Any] = json.loads(self.run("get", kind, name, "-o", "json").stdout)
        return found

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object as JSON, None where the cluster knows the kind and has no such object; raises KubectlFailed."""
        try:
            return self.get(kind, name)
        except KubectlFailed as error:
            if f'"{name}" not found' in str(error):  # and not, for instance, the kind
                return None
            raise

    def until(self, kind: str, name: str, true: Callable[[dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
        """The object once `true` of it, by a watch of its own; raises KubectlFailed after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        watch = ["get", kind, name, "-o", "json", "--watch", f"--request-timeout={max(1, round(timeout_s))}s"]
        command = [*self._command(), *watch]
        with subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as out:
            assert out.stdout is not None
            try:
                return _first(out.stdout, true)
            except EOFError:
                pass
            finally:
                out.kill()
        obj = self.get(kind, name)
        if true(obj):
            return obj
        if time.monotonic() < deadline:  # the watch ended early, as watches do
            return self.until(kind, name, true, deadline - time.monotonic())
        conditions = {c["type"]: f"{c['status']} {c['reason']}" for c in obj.get("status", {}).get("conditions", [])}
        raise KubectlFailed(f"{kind} {name} did not become so in {timeout_s:.0f} s; it is {conditions}")

    def install(self) -> None:
        """Have our kinds and the bridge's rights in the cluster; may be repeated."""
        files = [part for path in (*CRDS, RBAC) for part in ("-f", str(ROOT / path))]
        replace(self, namespace=None).run("apply", *files)
        kinds = [f"crd/{Path(path).stem}.boardlet.dev" for path in CRDS]
        self.run("wait", "--for=condition=Established", *kinds)

    def _command(self, named: bool = False) -> list[str]:
        where = ["--context", self.context] if self.context else []
        return [str(self.kubectl), *where, *(["-n", self.namespace] if self.namespace and not named else [])]

    def bridge_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for the bridge's service account, valid for a day, and return its path."""
        token = self.run("create", "token", ACCOUNT, "-n", SYSTEM, f"--duration={LASTS}").stdout.strip()
        view = json.loads(self.run("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": ACCOUNT,
            "clusters": [{"name": ACCOUNT, "cluster": view["clusters"][0]["cluster"]}],
            "users": [{"name": ACCOUNT, "user": {"token": token}}],
            "contexts": [{"name": ACCOUNT, "context": {"cluster": ACCOUNT, "user": ACCOUNT, "namespace": SYSTEM}}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path


def of_user(context: str | None, namespace: str | None) -> Cluster:
    """The cluster that the user's kubectl reaches, not asked yet; raises `Missing`."""
    path = which("kubectl")
    if path is None:
        raise Missing("kubectl", "install it, and have it on PATH")
    return Cluster(Path(path), dict(os.environ), context, namespace)


def of_context(context: str, namespace: str) -> Cluster:
    """The cluster of a context of the user's kubeconfig; raises `Missing` or KubectlFailed."""
    cluster = of_user(context, namespace)
    answer = json.loads(cluster.run("version", "-o", "json", timeout_s=20).stdout)
    server = answer.get("serverVersion")
    if server is None:
        raise KubectlFailed(f"the cluster of context {context} does not answer")
    version = int(server["major"]), int("".join(filter(str.isdigit, server["minor"])))
    if version < OLDEST:
        raise Missing(f"Kubernetes 1.{OLDEST[1]} or newer", f"context {context} has {version[0]}.{version[1]}")
    return cluster


def _words(stderr: str) -> str:
    # What kubectl says to a person; the lines before it are its library's log (klog: level, month and day, time).
    return "\n".join(line for line in stderr.splitlines() if not KLOG.match(line)).strip() or stderr.strip()


def _first(lines: Any, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    # kubectl prints one indented JSON document after the other.
    text = ""
    for line in lines:
        text += line
        if line == "}\n":
            obj: dict[str, Any] = json.loads(text)
            text = ""
            if true(obj):
                return obj
    raise EOFError
