"""`python -m node build` makes the programs of a node, once for this machine."""

from __future__ import annotations

import argparse
import sys

from provision.golang import BuildFailed
from provision.missing import Missing
from provision.progress import for_stream

from .programs import find


def main() -> int:
    """Build; returns the exit code: 1 for what this machine lacks."""
    parser = argparse.ArgumentParser(prog="python -m node", description=__doc__)
    parser.add_argument("command", choices=["build"])
    parser.parse_args()
    try:
        programs = find(for_stream())
    except (Missing, BuildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"kubelet and what goes with it: {programs.kubelet.parent}; containerd: {programs.containerd.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
