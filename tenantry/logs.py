"""Logs: one JSON object a line for machines, short coloured lines on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(*, level: str | None = None, json: bool | None = None) -> None:
    """Set up structlog for a program of this project.

    `TENANTRY_LOG_LEVEL` (debug, info, warning, error) and `TENANTRY_LOG_FORMAT` (json, text) are
    the defaults; without them: info, and JSON unless stderr is a terminal.
    """
    name = (level or os.environ.get("TENANTRY_LOG_LEVEL", "info")).lower()
    form = os.environ.get("TENANTRY_LOG_FORMAT", "")
    as_json = json if json is not None else (form == "json" or (not form and not _is_terminal()))
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        # Without local variables: they hold tenants' data and tokens.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors += [
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(),
        ]
    else:
        plain = structlog.dev.plain_traceback
        processors.append(
            structlog.dev.ConsoleRenderer(colors=_is_terminal(), exception_formatter=plain)
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(name, 20)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # nats-py logs every connection error itself; ours say the same with what follows from it.
    logging.getLogger("nats").setLevel(logging.ERROR)


def _is_terminal() -> bool:
    return sys.stderr.isatty()
