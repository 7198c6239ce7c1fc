"""The command line: `tenantry`. One module for each noun; `app` puts them together."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import structlog

from tenantry import logs
from tenantry.cli import output
from tenantry.errors import TenantryError
from tenantry.local import notify

FAILED = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0, 1 when it failed, 2 when it was called wrongly.

    An expected error is one line on stderr, and one to the supervisor that may have started us.
    """
    from cyclopts import CycloptsError

    from tenantry.cli.app import app

    _quiet()
    output.keep_whole()
    try:
        result = app(
            sys.argv[1:] if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
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
        # Whoever read us has left: say no more, also not when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return result if isinstance(result, int) else 0


def _quiet() -> None:
    """A command says in its own words what went wrong; `run` sets up logs for itself."""
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    if "TENANTRY_LOG_LEVEL" in os.environ:
        logs.configure()
    else:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _fail(line: str, code: int) -> int:
    output.note(f"tenantry: {line}")
    notify.failed(line)
    return code
