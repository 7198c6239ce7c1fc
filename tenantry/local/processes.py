"""Processes of this machine: do they live, are they who we think, and dying with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL = 0.05
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child runs before its program: get `number` when the process that starts it dies.

    Linux only; elsewhere it does nothing, and :func:`end` clears up at the next start.
    """
    parent = os.getpid()

    def before() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

    return before


def birth(pid: int) -> str | None:
    """When a process began, as this system says it; None if there is none.

    Process ids are used again: only the same id with the same birth is the same process.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X"} else fields[19]
    done = subprocess.run(
        ["ps", "-p", str(pid), "-o", "lstart="], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def end(processes: Iterable[tuple[int, str]], *, patience: float = 5.0) -> int:
    """End what still lives of these (id, birth); SIGKILL after `patience` seconds.

    Returns how many there were.
    """
    live = [(pid, born) for pid, born in processes if born and birth(pid) == born]
    count = len(live)
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
        for pid, _ in live:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while live and time.monotonic() < deadline:
            live = [(pid, born) for pid, born in live if birth(pid) == born]
            if live:
                time.sleep(_POLL)
    return count
