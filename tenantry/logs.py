"""Logs: one JSON object a line for machines, short coloured lines on a terminal.

Telling about work never fails the work: a line that can't be rendered or written is dropped and
counted, and a reader that does not read holds nobody up.
"""

from __future__ import annotations

import functools
import logging
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TextIO

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PATIENCE = 0.5
"""Seconds that the first line may wait for a reader that does not read; later ones do not."""
_CHUNK = select.PIPE_BUF
"""A pipe that is ready takes so much without waiting, bytes."""


class Lossy:
    """Writes to a stream as far as it takes anything; what it does not take is dropped."""

    lost: ClassVar[int] = 0
    """Count of the lines that this process could not write or render."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self._stuck = False

    def write(self, text: str) -> None:
        """Write it at once. Never raises for what the stream does."""
        try:
            written = self._write(text)
        except (OSError, ValueError):
            written = False
        if not written:
            Lossy.lost += 1

    def flush(self) -> None:
        """Do nothing: all is written at once."""

    def _write(self, text: str) -> bool:
        stream = self.stream
        if stream is None:
            return False
        handle = _handle(stream)
        if handle is None:
            stream.write(text)
            return True
        rest = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
        while rest:
            _, ready, _ = select.select((), (handle,), (), 0.0 if self._stuck else _PATIENCE)
            self._stuck = not ready
            if not ready:
                return False
            rest = rest[os.write(handle, rest[:_CHUNK]) :]
        return True


def stderr() -> Lossy:
    """Standard error; one object as long as `sys.stderr` is the same."""
    return _lossy(sys.stderr)


@functools.lru_cache(maxsize=1)
def _lossy(stream: TextIO | None) -> Lossy:
    return Lossy(stream)


def configure(*, level: str | None = None, json: bool | None = None) -> None:
    """Set up structlog for a program of this project.

    `TENANTRY_LOG_LEVEL` (debug, info, warning, error) and `TENANTRY_LOG_FORMAT` (json, text) are
    the defaults; without them: info, and JSON unless stderr is a terminal.
    """
    import structlog

    name = (level or os.environ.get("TENANTRY_LOG_LEVEL", "info")).lower()
    form = os.environ.get("TENANTRY_LOG_FORMAT", "")
    as_json = json if json is not None else (form == "json" or (not form and not _is_terminal()))
    stream: Any = stderr()
    structlog.configure(
        processors=[_guarded(_processors(as_json=as_json))],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(name, 20)),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream)
    # nats-py logs every connection error itself; ours say the same with what follows from it.
    logging.getLogger("nats").setLevel(logging.ERROR)


def _processors(*, as_json: bool) -> list[Any]:
    import structlog

    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not as_json:
        from structlog.dev import ConsoleRenderer, plain_traceback

        return [*common, ConsoleRenderer(colors=coloured(), exception_formatter=plain_traceback)]
    # Without local variables: they hold tenants' data and tokens.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        *common,
        structlog.processors.ExceptionRenderer(frames),
        structlog.processors.JSONRenderer(),
    ]


def coloured() -> bool:
    """Tell whether stderr is a terminal whose user has not set `NO_COLOR`."""
    return _is_terminal() and not os.environ.get("NO_COLOR")


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _guarded(processors: Sequence[Any]) -> Callable[[Any, str, Any], Any]:
    """Run these; what they can't render (a `repr` that raises) is dropped and counted."""

    import structlog

    def run(logger: Any, name: str, event: Any) -> Any:
        try:
            for processor in processors:
                event = processor(logger, name, event)
        except structlog.DropEvent:
            raise
        except Exception:  # noqa: BLE001  (whatever the values of a line do)
            Lossy.lost += 1
            raise structlog.DropEvent from None
        return event

    return run


def _handle(stream: TextIO) -> int | None:
    """The descriptor of a stream; None for one in memory."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
