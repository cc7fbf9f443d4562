"""What processes use: CPU seconds and resident memory, from /proc."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from provision.process import Process

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(process: Process) -> float:
    """CPU seconds of a running process so far, user and system, all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(process: Process) -> float:
    """Its resident memory now, in MB."""
    return _kb(process, "VmRSS")


def peak_mb(process: Process) -> float:
    """The most resident memory that it ever had, in MB."""
    return _kb(process, "VmHWM")


def _kb(process: Process, name: str) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024, 1)


class Window:
    """CPU seconds that processes use from now on; `processes` tells them, and one may be another at the end."""

    def __init__(self, processes: Callable[[], Mapping[str, Process]]) -> None:
        self._processes = processes
        self._before = {process.pid: cpu_s(process) for process in processes().values()}

    def end(self) -> dict[str, float]:
        """CPU seconds of each since this window was made, or since it was started if that was later."""
        return {name: round(cpu_s(p) - self._before.get(p.pid, 0.0), 2) for name, p in self._processes().items()}
