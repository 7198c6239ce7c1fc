"""The handler of durable work on all sides: it does nothing but see the first and the last."""

from __future__ import annotations

import json
import os
import sys
import time

from benchmarks import machine
from benchmarks.echo import Echo

SERVER = "BENCHMARKS_SERVER"
"""Names the environment variable with the process id of the nats-server that is watched, too."""


class Meter:
    """Counts to the `quantity` that each message names: how many there are in all."""

    __slots__ = ("_before", "_pids", "_seen")

    def __init__(self) -> None:
        self._seen, self._before = 0, (0.0, 0.0, 0.0)
        self._pids = {"worker": os.getpid(), "server": int(os.environ.get(SERVER, os.getpid()))}

    def take(self, message: Echo) -> None:
        """One message. At the last, a line with the seconds since the first, the CPU seconds of
        this process and those of the server.
        """
        if not self._seen:
            self._before = self._now()
        self._seen += 1
        if self._seen == message.quantity:
            took = [now - then for now, then in zip(self._now(), self._before, strict=True)]
            sys.stdout.write(json.dumps(took) + "\n")
            sys.stdout.flush()
            self._seen = 0

    def _now(self) -> tuple[float, float, float]:
        spent = machine.cpu(self._pids)
        return time.perf_counter(), spent["worker"], spent["server"]
