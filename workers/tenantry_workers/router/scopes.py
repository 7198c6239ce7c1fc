"""Which rate limits a message is subject to."""

from __future__ import annotations

from functools import lru_cache

from tenantry.messages import Plan
from tenantry_workers.router.limits import Meter


def meters(plan: Plan, name: str) -> tuple[Meter, ...]:
    """From the general to the specific; `name` is `<service>.<action>`."""
    del name  # no plan has limits of single services or actions yet
    return _default(plan.rate, plan.burst)


@lru_cache(maxsize=1024)
def _default(rate: float, burst: int) -> tuple[Meter, ...]:
    return (Meter("default", rate, burst),)
