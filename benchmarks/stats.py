"""Medians, their spread, and how sure a difference is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        half = (self.high - self.low) / 2
        return f"{self.median:{form}} ±{half:{form}}"


def spread(values: Sequence[float]) -> Spread:
    """Of some rounds; with fewer than four, from the least to the most."""
    if len(values) < 4:
        return Spread(median(values), min(values), max(values))
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def bootstrap(values: Sequence[float], *, sure: float = 0.95, seed: int = 1) -> Spread:
    """The median, and the interval that it is in with this confidence (percentile bootstrap)."""
    rng = random.Random(seed)
    drawn = sorted(median(rng.choices(values, k=len(values))) for _ in range(_DRAWS))
    tail = (1 - sure) / 2
    return Spread(median(values), drawn[int(tail * _DRAWS)], drawn[int((1 - tail) * _DRAWS) - 1])
