"""Asking before what can't be undone."""

from __future__ import annotations

import sys

from tenantry.cli.usage import UsageError


def typed(tenant: str, question: str, *, doing: str, done: str) -> None:
    """Have the tenant's id typed; raises :class:`UsageError` without a terminal, or for another.

    `doing` and `done` are the words for the errors, such as `deleting` and `deleted`.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            f"{doing} {tenant} has to be confirmed", hint="give --yes, or use a terminal"
        )
    sys.stderr.write(f"{question} Type its id: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != tenant:
        raise UsageError(f"not {done}: that was another id")


def yes(question: str) -> None:
    """Ask for a yes; raises :class:`UsageError` without one, or without a terminal."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question}? That has to be confirmed", hint="give --yes, or use a terminal"
        )
    sys.stderr.write(f"{question}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was done")
