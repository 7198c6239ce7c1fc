"""How a child process tells who started it that it is ready, or why it is not.

The parent hands down the writing end of a pipe and names it in the environment (as s6 does it).
The child writes one line: `ready <text>` or `failed <reason>`. A pipe that closes without a line
means that the child ended. Without the variable all of this does nothing.
"""

from __future__ import annotations

import contextlib
import os

VARIABLE = "TENANTRY_READY_FD"
READY = "ready"
FAILED = "failed"


def _take() -> int | None:
    """The pipe that was handed down; children of this process shall not have it too."""
    text = os.environ.pop(VARIABLE, "")
    if not text.isdigit():
        return None
    handle = int(text)
    try:
        os.set_inheritable(handle, False)
    except OSError:
        return None
    return handle


_handle = _take()


def ready(text: str = "") -> None:
    """Tell the parent that this process serves now."""
    _say(READY, text)


def failed(reason: str) -> None:
    """Tell the parent why this process never will; after `ready` nobody listens any more."""
    _say(FAILED, reason)


def _say(word: str, text: str) -> None:
    global _handle  # one pipe per process, used once
    handle, _handle = _handle, None
    if handle is not None:
        with contextlib.suppress(OSError):
            os.write(handle, f"{word} {' '.join(text.split())}\n".encode()[:4096])
            os.close(handle)


def read(line: bytes) -> tuple[bool, str]:
    """Whether a line of the pipe says ready, and the text behind it."""
    word, _, text = line.decode(errors="replace").strip().partition(" ")
    return word == READY, text
