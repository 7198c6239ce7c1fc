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


class Counters(Protocol):
    """Sums since the start, of a limiter over Redis."""

    calls: int
    """Round trips."""
    failures: int
    """Those that failed or came too late."""
    leased: int
    """Messages that Redis has granted ahead."""
    credit: int
    """Messages admitted at once and charged afterwards."""
    returned: int
    """Grants that went back unused."""
    parked: int
    """Messages that had to wait for a grant."""


class Leases(Protocol):
    """A limiter over Redis, as far as it is read here."""

    @property
    def away(self) -> bool:
        """Whether it decides without Redis now."""
        ...

    @property
    def counters(self) -> Counters:
        """What it has done."""
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
                metrics.observe(metrics.REDIS_UP, lambda: [(float(not leases.away), {})]),
                metrics.observe(metrics.LEASE_CALLS, lambda: _calls(leases.counters)),
                metrics.observe(metrics.LEASE_MESSAGES, lambda: _messages(leases.counters)),
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


def _calls(counts: Counters) -> Iterable[tuple[float, Attributes]]:
    return [
        (counts.calls - counts.failures, {metrics.OUTCOME: "ok"}),
        (counts.failures, {metrics.OUTCOME: "failed"}),
    ]


def _messages(counts: Counters) -> Iterable[tuple[float, Attributes]]:
    return [
        (count, {metrics.LEASE: name})
        for name, count in (
            ("leased", counts.leased),
            ("credit", counts.credit),
            ("returned", counts.returned),
            ("parked", counts.parked),
        )
    ]


def _wanted() -> int:
    """How many tenants the environment asks for. Raises :class:`SetupError`."""
    text = os.environ.get(TENANTS, "0")
    if not text.isdecimal() or int(text) > _MOST:
        raise SetupError(f"{TENANTS} is {text!r}", hint=f"set it to 0 to {_MOST}")
    return int(text)
