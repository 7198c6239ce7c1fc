"""The handler of durable work on all sides: it does nothing but see the first and the last."""

from __future__ import annotations

import json
import sys
import time

from benchmarks.echo import Echo


class Meter:
    """Counts to the `quantity` that each message names: how many there are in all."""

    __slots__ = ("_began", "_cpu", "_seen")

    def __init__(self) -> None:
        self._seen, self._began, self._cpu = 0, 0.0, 0.0

    def take(self, message: Echo) -> None:
        """One message. At the last, a line with the seconds and the CPU seconds since the first."""
        if not self._seen:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        self._seen += 1
        if self._seen == message.quantity:
            took = time.perf_counter() - self._began, time.process_time() - self._cpu
            sys.stdout.write(json.dumps(took) + "\n")
            sys.stdout.flush()
            self._seen = 0
