"""`make audit`: what is known against the dependencies that the lock files pin.

Exit codes of `python -m audit`, which make shows and does not pass on: 0 nothing is known, 1 something is, 2 wrong
usage or lock file, 3 the database cannot be reached, so that nothing was audited.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from audit.osv import Unreachable, known, pinned

ROOT = Path(__file__).parents[2]
LOCKS = {"bridge": ROOT / "bridge/requirements.txt", "development": ROOT / "tools/requirements-dev.txt"}
URL = "https://api.osv.dev"


def main(argv: list[str] | None = None) -> int:
    """Print what is known; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    default = os.environ.get("BOARDLET_AUDIT_URL", URL)
    parser.add_argument(
        "--url", default=default, help=f"server with OSV's API (default: $BOARDLET_AUDIT_URL, or {URL})"
    )
    parser.add_argument("locks", nargs="*", type=Path, help="lock files (default: the bridge's and development's)")
    chosen = parser.parse_args(argv)
    named = {str(lock): lock for lock in chosen.locks} or LOCKS
    try:
        of = {name: set(pinned(lock)) for name, lock in named.items()}
    except (OSError, ValueError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    try:
        found = known(set().union(*of.values()), chosen.url)
    except Unreachable as error:
        print(
            f"audit: nothing was audited, the database cannot be reached: {error}. Try again where it can, or name a "
            "mirror in BOARDLET_AUDIT_URL",
            file=sys.stderr,
        )
        return 3
    for package, ids in found.items():
        where = ", ".join(name for name, packages in of.items() if package in packages)
        print(f"{package.name} {package.version} ({where}): {' '.join(ids)}")
    count = len(set().union(*of.values()))
    if found:
        print(f"audit: something is known against {len(found)} of {count} packages: raise them, then `make lock`")
        return 1
    print(f"audit: nothing is known against {count} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
