"""Programs and sources from the distribution's packages, unpacked into the cache: no root, nothing installed.

`program` gives an executable with the shared libraries that this system lacks (apt itself says which they are).
`fetch_source` gives a Debian source package, from whichever Debian suite has it.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from . import cache
from .apt import Apt, Source, distribution_sources
from .missing import Missing
from .progress import Progress

MIRROR_VARIABLE = "BOARDLET_DEBIAN_MIRROR"
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin")
_PROGRAM_S, _SOURCE_S = 10.0, 20.0  # measured, most of it the index


@dataclass(frozen=True, slots=True)
class Program:
    """An executable, and the environment in which it finds its libraries."""

    path: Path
    libraries: tuple[Path, ...] = ()

    @property
    def env(self) -> dict[str, str]:
        """This process's environment, with the program's own libraries in front."""
        if not self.libraries:
            return dict(os.environ)
        known = os.environ.get("LD_LIBRARY_PATH", "")
        paths = [str(folder) for folder in self.libraries] + ([known] if known else [])
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)}


def installed(name: str) -> Program | None:
    """The program `name` as the system has it (also in the sbin folders, which are not on every user's PATH)."""
    path = which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]))
    return Program(Path(path)) if path else None


def program(package: str, name: str | None = None, progress: Progress | None = None) -> Program:
    """The program `name` (default: as the package) out of the distribution's `package`, unpacked into the cache.

    Raises `Missing` where there is no such package, or no apt, or no network.
    """
    version = f"{platform.freedesktop_os_release().get('VERSION_CODENAME', 'unknown')}-{platform.machine()}"
    for attempt in (1, 2):
        folder = cache.artifact(
            f"deb-{package}",
            version,
            lambda into: _unpack(package, into),
            progress=progress,
            what=f"unpacking {package} from the distribution's packages",
            usual_s=_PROGRAM_S,
        )
        found = _find(folder, name or package)
        lacking = _lacking(found)
        if not lacking:
            return found
        if attempt == 1:  # a library that the system had then is gone now: ask apt again
            cache.discard(f"deb-{package}", version)
    raise Missing(f"{', '.join(lacking)} for {package}", f"install {package} with apt-get")


def fetch_source(package: str, version: str, suite: str, progress: Progress | None = None) -> Path:
    """The folder with the unpacked Debian source package at exactly `version`, Debian's patches applied.

    Raises `Missing` where there is no Debian mirror, key, dpkg-source, or no such version in `suite`.
    """

    def build(into: Path) -> None:
        for tool, owner in (("dpkg-source", "dpkg-dev"), ("patch", "patch")):
            if which(tool) is None:
                raise Missing(tool, f"install the package {owner}")
        source = Source(("deb-src",), (debian_mirror(),), (suite,), ("main",), str(_debian_keys()))
        with TemporaryDirectory(prefix="boardlet-apt-") as folder:
            apt = Apt(Path(folder), [source])
            apt.run("update")
            apt.run("source", "--only-source", "--download-only", f"{package}={version}", cwd=into)
        described = next(into.glob("*.dsc"))
        # apt has checked every file against the signed index; dpkg-source would want the maintainer's key as well.
        command = ["dpkg-source", "--no-check", "--extract", described.name, "source"]
        done = subprocess.run(command, cwd=into, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise Missing(f"{package} {version} does not unpack", done.stdout.strip()[-300:])

    name = f"source-{package}"
    what = f"fetching the source of {package} {version}"
    made = cache.artifact(name, version, build, progress=progress, what=what, usual_s=_SOURCE_S)
    return made / "source"


def _unpack(package: str, into: Path) -> None:
    with TemporaryDirectory(prefix="boardlet-apt-") as folder:
        apt = Apt(Path(folder), distribution_sources())
        apt.run("update")
        # Only what this system lacks is downloaded; nothing is installed.
        apt.run("install", "--download-only", "--no-install-recommends", package)
        for archive in sorted((Path(folder) / "cache/archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", str(archive), str(into)], check=True)


def _find(folder: Path, name: str) -> Program:
    for place in _FOLDERS:
        if (folder / place / name).is_file():
            libraries = sorted({file.parent for file in folder.glob("**/*.so*") if "lib" in file.parts})
            return Program(folder / place / name, tuple(libraries))
    raise Missing(name, "the distribution's package does not have it; is it installed already, outside PATH?")


def _lacking(program: Program) -> list[str]:
    done = subprocess.run(["ldd", str(program.path)], env=program.env, stdout=subprocess.PIPE, text=True, check=True)
    return [line.split()[0] for line in done.stdout.splitlines() if "not found" in line]


def debian_mirror() -> str:
    """A mirror of Debian: `$BOARDLET_DEBIAN_MIRROR`, else this machine's own if it is a Debian; raises `Missing`."""
    chosen = os.environ.get(MIRROR_VARIABLE)
    if chosen:
        return chosen
    if platform.freedesktop_os_release().get("ID") == "debian":
        for source in distribution_sources():
            if not any("-security" in suite for suite in source.suites):
                return source.uris[0]
    raise Missing("a mirror of Debian", f"name one in {MIRROR_VARIABLE}")


def _debian_keys() -> Path:
    if not DEBIAN_KEYS.is_file():
        raise Missing(str(DEBIAN_KEYS), "install the package debian-archive-keyring")
    return DEBIAN_KEYS
