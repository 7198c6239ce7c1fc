"""How many bytes of the journal a message takes, how long, and what a tenant has there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tenantry.messages import Volume

BUCKET = "volumes"
PROGRESS = "journal.progress"
NAME = "journal-bytes"
"""What the limit is called in answers and events."""

_FRAME = 34
_LINES = 12
_PIECES = 64
_SHORTEST = 60


class Piece(NamedTuple):
    """One message of the journal, as it counts."""

    seq: int
    until: int
    """When it is gone at the latest, seconds since the epoch; 0 for never."""
    size: int
    """Bytes in the journal's files."""


def stored_size(subject: str, headers: Mapping[str, str], body: int) -> int:
    """The bytes that nats-server counts for a message with `body` bytes on a stored `subject`."""
    fields = _LINES + sum(len(name) + len(value) + 4 for name, value in headers.items())
    return _FRAME + len(subject) + fields + body


def gone(stored: float, life: str | None, max_age: float = 0.0) -> int:
    """When a message with this `Nats-TTL` is gone, rounded up by at most a 32nd of its life.

    `stored` is when it was stored, `max_age` what the stream itself allows (0 for any age), both in
    seconds. 0 for one that stays.
    """
    number = (life or "").removesuffix("s")
    age = float(number) if number.isdecimal() else 0.0
    age = min(age or max_age, max_age or age)
    if not age:
        return 0
    width = _SHORTEST << max(0, math.ceil(math.log2(age / _PIECES / _SHORTEST)))
    return math.ceil((stored + age) / width) * width


def total(volume: Volume, now: float) -> int:
    """The bytes that are there at `now`."""
    return sum(size for until, size in volume.parts.items() if not until or until > now)


def counted(volume: Volume, pieces: Iterable[Piece], last: int, now: float) -> Volume:
    """The volume with these pieces too, as far as it lacks them; what is gone goes.

    `last` is the sequence up to which there are no others.
    """
    parts = {until: size for until, size in volume.parts.items() if not until or until > now}
    ever = volume.ever
    for piece in pieces:
        if piece.seq > volume.seq and (not piece.until or piece.until > now):
            parts[piece.until] = parts.get(piece.until, 0) + piece.size
            ever += piece.size
    return Volume(seq=max(volume.seq, last), parts=parts, ever=ever, told=volume.told)


def room_at(volume: Volume, wanted: int, now: float) -> float | None:
    """When at most `wanted` bytes are left of it, seconds since the epoch; None for never."""
    left = total(volume, now)
    if left <= wanted:
        return now
    for until, size in sorted(volume.parts.items()):
        if until > now:
            left -= size
            if left <= wanted:
                return float(until)
    return None
