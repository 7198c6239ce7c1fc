"""Which child processes of the tests are traced for coverage: few, since it takes their time."""

from __future__ import annotations

import os

_NAME = "COVERAGE_PROCESS_CONFIG"
_taken = ""


def take_away() -> None:
    """Let what the tests start run untraced."""
    global _taken  # noqa: PLW0603
    _taken = os.environ.pop(_NAME, _taken)


def environment() -> dict[str, str]:
    """The environment of a child whose coverage counts: it runs what nothing else does."""
    return os.environ | ({_NAME: _taken} if _taken else {})
