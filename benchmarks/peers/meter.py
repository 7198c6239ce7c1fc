"""The handler of durable work on all sides: it counts, and measures the middle half."""

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
    """Counts to the `quantity` that each message names: how many there are in all.

    It measures from the first quarter to the third. A consumer holds thousands of messages before
    its handler runs for the first time; so it holds about as many at both ends of what is measured.
    """

    __slots__ = ("_before", "_first", "_last", "_pids", "_seen", "_took")

    def __init__(self) -> None:
        self._seen = self._first = self._last = 0
        self._before = self._took = (0.0, 0.0, 0.0)
        self._pids = {"worker": os.getpid(), "server": int(os.environ.get(SERVER, os.getpid()))}

    def take(self, message: Echo) -> None:
        """Count one message. The last one prints how many were measured, the seconds that they
        took, the CPU seconds of this process and those of the server.
        """
        if not self._seen:
            self._first, self._last = message.quantity // 4, message.quantity * 3 // 4
        self._seen += 1
        if self._seen == self._first:
            self._before = self._now()
        elif self._seen == self._last:
            self._took = self._now()
        if self._seen == message.quantity:
            took = [then - before for then, before in zip(self._took, self._before, strict=True)]
            sys.stdout.write(json.dumps([self._last - self._first, *took]) + "\n")
            sys.stdout.flush()
            self._seen = 0

    def _now(self) -> tuple[float, float, float]:
        spent = machine.cpu(self._pids)
        return time.perf_counter(), spent["worker"], spent["server"]
