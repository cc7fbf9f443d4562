"""apt with a state of its own: reads the distribution's packages without root, and changes nothing of the system.

The system's own lists may be empty, old, or another user's. So each use has its own folder of lists and downloads, and
takes from the system only what says whom to trust: the mirrors in its sources and the keys they are signed with.
apt verifies what it downloads (signed index, hash of each file), as it does for root.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from .missing import Missing

SOURCES = Path("/etc/apt")
_RELEASES = ("stable", "testing", "unstable", "sid")  # sources may name a release by its role
_ERROR_LINES = 4  # of apt's output, told to the user
_APT_S = 600.0  # one apt command over a slow line

# Hooks belong to the system's own apt runs; the last options keep an update to what is needed here.
_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
Dir::State "{folder}/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/list.sources";
Dir::Etc::sourceparts "-";
Debug::NoLocking "true";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
"""


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of apt's sources; `signed_by` is a path or an inline key, as apt writes it; empty: any known key."""

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def stanza(self) -> str:
        """The entry in apt's deb822 format (sources.list(5))."""
        fields = {"Types": self.types, "URIs": self.uris, "Suites": self.suites, "Components": self.components}
        lines = [f"{name}: {' '.join(values)}" for name, values in fields.items() if values]
        return "\n".join([*lines, *([f"Signed-By: {self.signed_by}"] if self.signed_by else [])]) + "\n"


class Apt:
    """apt-get over `sources`, with its state in `folder`."""

    def __init__(self, folder: Path, sources: Iterable[Source]) -> None:
        self.folder = folder
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "list.sources").write_text("\n".join(source.stanza() for source in sources))
        (folder / "apt.conf").write_text(_CONF.format(folder=folder))

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run `apt-get arguments…` and return what it printed; raises `Missing` with its last lines if it fails."""
        program = which("apt-get")
        if program is None:
            raise Missing("apt-get", "this is no Debian or Ubuntu; use your own package manager")
        done = subprocess.run(
            [program, "-q", "-y", "-c", str(self.folder / "apt.conf"), *arguments],
            cwd=cwd or self.folder,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_APT_S,
        )
        if done.returncode:
            told = [line for line in done.stdout.splitlines() if line.startswith(("E:", "W:", "Err:"))]
            said = "; ".join((told or done.stdout.splitlines())[-_ERROR_LINES:])
            raise Missing(f"apt-get {arguments[0]} failed ({said})", "check the network and the sources in /etc/apt")
        return done.stdout


def system_sources(etc: Path = SOURCES) -> Iterator[Source]:
    """The entries of the system's own sources, in both of apt's formats."""
    for file in (etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))):
        if not file.is_file():
            continue
        if file.suffix == ".list":
            yield from _one_line(file.read_text())
        elif file.suffix == ".sources":
            yield from _deb822(file.read_text())


def distribution_sources() -> list[Source]:
    """The entries that are the running distribution's own; raises `Missing` where there are none."""
    release = platform.freedesktop_os_release()
    codenames = {release.get(key) for key in ("VERSION_CODENAME", "UBUNTU_CODENAME")} - {None, ""}
    wanted = (*sorted(str(name) for name in codenames), *_RELEASES)
    found = [
        source
        for source in system_sources()
        if "deb" in source.types and any(suite.split("-")[0] in wanted for suite in source.suites)
    ]
    if not found:
        raise Missing(f"a package source of {release.get('PRETTY_NAME', 'this system')}", f"add one in {SOURCES}")
    return [Source(("deb",), each.uris, each.suites, each.components, each.signed_by) for each in found]


def _one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        head, bracket, rest = line.split("#")[0].partition("[")
        options, _, tail = rest.partition("]") if bracket else ("", "", head)
        words = ([*head.split(), *tail.split()] if bracket else head.split()) if head.strip() else []
        if len(words) < 3 or words[0] not in ("deb", "deb-src"):
            continue
        signed_by = [option.partition("=")[2] for option in options.split() if option.startswith("signed-by=")]
        yield Source((words[0],), (words[1],), (words[2],), tuple(words[3:]), " ".join(signed_by))


def _deb822(text: str) -> Iterator[Source]:
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0].isspace():  # the value goes on: lists may, inline keys do
                fields[name] = f"{fields.get(name, '')}\n{line}"
            else:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        if "uris" in fields and fields.get("enabled", "yes").lower() not in ("no", "false"):
            types, uris, suites, components = (
                tuple(fields.get(key, "").split()) for key in ("types", "uris", "suites", "components")
            )
            yield Source(types, uris, suites, components, fields.get("signed-by", ""))
