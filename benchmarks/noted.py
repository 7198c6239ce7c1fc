"""A command that notes in a file when it was handled: latencies of stored messages.

What is noted outlives a kill of the process, since each line is one write of the system's.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from tenantry import Context, Service

_PATIENCE = 60.0
_AGAIN = 0.5
FILE = "BENCHMARKS_NOTES"
"""Names the environment variable with the file that lines are appended to."""


class Note(Struct, frozen=True):
    """A message, numbered by its sender."""

    number: int
    due: float
    """When it was to be sent, by `time.monotonic`, which all processes of a machine share."""
    pause: float = 0.0
    """Seconds that its handler waits."""


class Noted(NamedTuple):
    """A message that was handled; both times by `time.monotonic`."""

    tenant: str
    number: int
    due: float
    handled: float

    @property
    def latency(self) -> float:
        """Seconds."""
        return self.handled - self.due


def read(file: Path) -> list[Noted]:
    """All messages that were handled, each once: as it was handled first."""
    found: dict[tuple[str, int], Noted] = {}
    lines = file.read_text().splitlines() if file.exists() else []
    for line in lines:
        tenant, number, due, handled = line.split()
        noted = Noted(tenant, int(number), float(due), float(handled))
        found.setdefault((tenant, noted.number), noted)
    return list(found.values())


async def handled(file: Path, count: int, tenants: Container[str]) -> list[Noted]:
    """Wait until so many messages of these tenants were handled, and return them."""
    end = time.monotonic() + _PATIENCE
    while len(found := [each for each in read(file) if each.tenant in tenants]) < count:
        if time.monotonic() > end:
            raise RuntimeError(f"{len(found)} messages of {count} were handled")
        await asyncio.sleep(_AGAIN)
    return found


def percentile(noted: Iterable[Noted], part: float) -> float:
    """This part of the latencies is not higher, seconds; infinite where there are none."""
    latencies = sorted(each.latency for each in noted)
    if not latencies:
        return float("inf")
    return latencies[min(len(latencies) - 1, int(len(latencies) * part))]


class _File:
    """Opened when the first line is written."""

    def __init__(self) -> None:
        self._handle = -1

    def append(self, line: str) -> None:
        """Write a line at the end."""
        if self._handle < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._handle = os.open(os.environ[FILE], flags, 0o600)
        os.write(self._handle, line.encode())


service = Service("noted", version="1.0.0", concurrency=256)
_file = _File()


@service.command("take", public=True)
async def take(ctx: Context, note: Note) -> None:
    """Wait for as long as the message says, and note when that was over."""
    if note.pause:
        await asyncio.sleep(note.pause)
    _file.append(f"{ctx.tenant} {note.number} {note.due:.6f} {time.monotonic():.6f}\n")
