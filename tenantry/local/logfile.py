"""A child's log: a file that does not grow for ever, and its last lines in memory."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 10 * 1024 * 1024
"""A file that is larger becomes `NAME.log.1`, in place of the one before."""

_KEPT = 20


class LogFile:
    """Takes lines; `echo` gets each one too."""

    def __init__(
        self, path: Path, *, echo: Callable[[str], None] | None = None, limit: int = MAX_BYTES
    ) -> None:
        self.path = path
        self.last: deque[str] = deque(maxlen=_KEPT)
        self._echo = echo
        self._limit = limit
        self._file: BinaryIO | None = None

    def write(self, line: bytes) -> None:
        """Append one line; on a full disk it is only kept in memory."""
        with contextlib.suppress(OSError):
            self._append(line.rstrip(b"\r\n") + b"\n")
        text = line.decode(errors="replace").rstrip()
        if text:
            self.last.append(text)
            if self._echo is not None:
                with contextlib.suppress(OSError):  # the terminal may be gone
                    self._echo(text)

    def _append(self, line: bytes) -> None:
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
        self._file.write(line)
        if self._file.tell() > self._limit:
            self.close()
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    def close(self) -> None:
        """Close the file; the next line opens it anew."""
        if self._file is not None:
            self._file.close()
            self._file = None
