"""The command line: `tenantry`. One module for each noun; `app` puts them together."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO, cast

from tenantry import logs
from tenantry.cli import output, streams, system
from tenantry.errors import TenantryError
from tenantry.local import notify

FAILED = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0, 1 when it failed, 2 when it was called wrongly.

    An expected error, one of the operating system's too, is one line on stderr, and one to the
    supervisor that may have started us.
    """
    streams.prepare()
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    finally:
        streams.settle()


def _run(arguments: list[str]) -> int:
    from cyclopts import CycloptsError

    from tenantry.cli.app import app, tree

    named = any(not argument.startswith("-") for argument in arguments)
    if named:
        _quiet()
    try:
        result = (app if named else tree(summaries=True))(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except CycloptsError as error:
        command = " ".join(["tenantry", *(error.command_chain or ())])
        return _fail(f"usage: {' '.join(str(error).split())} (see `{command} --help`)", USAGE)
    except TenantryError as error:
        return _fail(output.error_line(error), USAGE if error.code == "usage" else FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE  # whoever read us has left: say no more
    except OSError as error:
        if "TENANTRY_LOG_LEVEL" in os.environ:
            output.note(traceback.format_exc())
        return _fail(output.error_line(system.explain(error)), FAILED)
    return result if isinstance(result, int) else 0


def _quiet() -> None:
    """A command says in its own words what went wrong; `run` sets up logs for itself."""
    import structlog

    logging.getLogger("nats").setLevel(logging.CRITICAL)
    if "TENANTRY_LOG_LEVEL" in os.environ:
        logs.configure()
    else:
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
            logger_factory=structlog.WriteLoggerFactory(cast("TextIO", logs.stderr())),
        )


def _fail(line: str, code: int) -> int:
    output.note(f"tenantry: {line}")
    notify.failed(line)
    return code
