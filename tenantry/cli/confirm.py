"""Asking before something that can't be undone."""

from __future__ import annotations

import sys

from tenantry.cli.usage import UsageError


def confirm(question: str) -> None:
    """Ask on the terminal; raises :class:`UsageError` without a yes, or without a terminal."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question}? That wants a yes", hint="give --yes, or use a terminal")
    sys.stderr.write(f"{question}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was done")
