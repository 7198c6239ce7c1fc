"""The metrics of a router: its counters, for OpenTelemetry to read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from tenantry import metrics
from tenantry.errors import SetupError
from tenantry.metrics import Attributes
from tenantry.runtime.tallies import TallyBook

TENANTS = "TENANTRY_METRICS_TENANTS"
"""How many of the busiest tenants have a metric of their own; none by default."""
_MOST = 100


class Leases(Protocol):
    """What a limiter over Redis tells of itself; all but `up` are sums since the start."""

    @property
    def up(self) -> bool:
        """Whether it reaches Redis now."""
        ...

    @property
    def calls(self) -> Mapping[str, int]:
        """Round trips by how they ended: `ok`, `failed`."""
        ...

    @property
    def messages(self) -> Mapping[str, int]:
        """Messages' worth of budget: `leased`, `returned`, `credit` (charged afterwards)."""
        ...


class RouterMetrics:
    """Reads what a router has decided, and what its limiter has asked Redis for, if it does."""

    def __init__(
        self, verdicts: Mapping[str, int], tallies: TallyBook, leases: Leases | None = None
    ) -> None:
        self._verdicts = verdicts
        self._tallies = tallies
        self._leases = leases
        self._tenants = _wanted()
        self._forget: list[Callable[[], None]] = []

    def start(self) -> None:
        """Be read; nothing where no SDK is set up."""
        if not metrics.enabled():
            return
        self._forget = [metrics.observe(metrics.DECISIONS, self._decisions)]
        if self._tenants:
            self._forget.append(metrics.observe(metrics.TENANT_RATE, self._rates))
        if (leases := self._leases) is not None:
            self._forget += [
                metrics.observe(metrics.REDIS_UP, lambda: [(float(leases.up), {})]),
                metrics.observe(metrics.LEASE_CALLS, lambda: _by(metrics.OUTCOME, leases.calls)),
                metrics.observe(
                    metrics.LEASE_MESSAGES, lambda: _by(metrics.LEASE, leases.messages)
                ),
            ]

    def stop(self) -> None:
        """Be read no more."""
        for forget in self._forget:
            forget()

    def _decisions(self) -> Iterable[tuple[float, Attributes]]:
        # Told from the start: that there is none is how an alert knows that no router runs.
        for code, count in {"admitted": 0, **self._verdicts}.items():
            if code in ("admitted", "ignored"):
                yield count, {metrics.VERDICT: code}
            else:
                yield count, {metrics.VERDICT: "refused", metrics.REASON: code}

    def _rates(self) -> Iterable[tuple[float, Attributes]]:
        return [
            (rate, {"tenant.id": tenant}) for tenant, rate in self._tallies.busiest(self._tenants)
        ]


def _by(name: str, counts: Mapping[str, int]) -> Iterable[tuple[float, Attributes]]:
    return [(count, {name: key}) for key, count in counts.items()]


def _wanted() -> int:
    """How many tenants the environment asks for. Raises :class:`SetupError`."""
    text = os.environ.get(TENANTS, "0")
    if not text.isdecimal() or int(text) > _MOST:
        raise SetupError(f"{TENANTS} is {text!r}", hint=f"set it to 0 to {_MOST}")
    return int(text)
