"""Log lines: structlog for ours, the standard library's loggers of kopf and aiohttp through the same renderer.

A line about one board names it: `object` is its Board, NAMESPACE/NAME, and `board` its id.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Final

import structlog

COMPONENTS: Final = (
    "bridge", "credentials", "engine", "enrolment", "finalizer", "folder", "lease", "leftover", "metrics", "notice",
    "resync", "status", "watch",
)  # fmt: skip
"""The loggers of ours, each line's `logger`."""


def configure(level: str, form: str, levels: Mapping[str, str] | None = None) -> None:
    """Log at `level` and above to standard error, as `json` or for the `console`; `levels` is for single components."""
    number = _number(level)
    own = {component: _number(said) for component, said in (levels or {}).items()}
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        # What nobody wants costs next to nothing here; what some component wants is told apart by the processor above.
        wrapper_class=structlog.make_filtering_bound_logger(min(number, *own.values()) if own else number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    finish = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=finish))
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for component in COMPONENTS:
        logging.getLogger(component).setLevel(own.get(component, logging.NOTSET))


def _number(level: str) -> int:
    number: int = getattr(logging, level.upper())
    return number
