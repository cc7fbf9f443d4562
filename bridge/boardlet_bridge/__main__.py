"""The bridge's process: `boardlet-bridge --help`. Exit codes: 0 stopped, 1 a bug of ours, 2 wrong settings."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from typing import Final

import structlog

from boardlet_bridge.runtime import logs, settings
from boardlet_bridge.runtime.wiring import Bridge, ConfigurationError

# kopf's thread and the main loop hand an edit to each other: neither may wait the usual 5 ms for the interpreter.
SWITCH_S: Final = 0.0002

# With 10,000 boards Python's own thresholds have it look through half a million objects every few seconds, 0.25 s of
# CPU each time, while every edit waits. What lives here is freed by its reference count; cycles are few and small.
GC_THRESHOLDS: Final = (20_000, 10, 100)

log = structlog.get_logger("bridge")


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    try:
        chosen = settings.load(sys.argv[1:])
    except settings.SettingsInvalid as error:
        print(f"boardlet-bridge: {error}", file=sys.stderr)
        return 2
    logs.configure(chosen.log_level, chosen.log_format, chosen.log_levels)
    for said in settings.unknown_variables(os.environ):
        log.warning(said)
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        asyncio.run(_run(chosen))
    except ConfigurationError as error:
        print(f"boardlet-bridge: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(chosen: settings.Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Bridge(chosen).run(stop)


if __name__ == "__main__":
    sys.exit(main())
