"""What of the tests is traced for coverage: not what would take its time and tell nothing new."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_NAME = "COVERAGE_PROCESS_CONFIG"
_taken = ""


def take_away() -> None:
    """Let what the tests start run untraced."""
    global _taken  # noqa: PLW0603
    _taken = os.environ.pop(_NAME, _taken)


def environment() -> dict[str, str]:
    """The environment of a child whose coverage counts: it runs what nothing else does."""
    return os.environ | ({_NAME: _taken} if _taken else {})


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Trace nothing in this thread meanwhile; a mesh in another one goes on being traced."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
