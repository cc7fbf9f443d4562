"""`python -m controlplane build` makes the programs; `python -m controlplane up` runs a control plane until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys

from provision.golang import BuildFailed
from provision.missing import Missing
from provision.process import Died, NotReady
from provision.progress import for_stream

from .programs import find
from .server import running


def main() -> int:
    """Run one of the two commands and return its exit code: 1 for what this machine lacks or what did not start."""
    parser = argparse.ArgumentParser(prog="python -m controlplane", description=__doc__)
    parser.add_argument("command", choices=["build", "up"])
    command = parser.parse_args().command
    try:
        programs = find(for_stream())
        if command == "build":
            print(f"kube-apiserver, etcd and kubectl from {programs.origin}: {programs.apiserver.parent}")
            return 0
        with running(programs) as plane:
            print(f"ready: export KUBECONFIG={plane.kubeconfig()}\nkubectl: {programs.kubectl}\nCtrl-C ends it")
            signal.sigwait([signal.SIGINT, signal.SIGTERM])
    except (Missing, BuildFailed, Died, NotReady) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
