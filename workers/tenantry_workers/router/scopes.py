"""Which limits a message is subject to, from the general to the specific."""

from __future__ import annotations

from typing import NamedTuple

from tenantry.messages import Plan, Quota
from tenantry_workers.router.limits import Meter

OWN = "default"
"""What the plan's own rate is called."""


class Limits(NamedTuple):
    """All that one message is counted against."""

    meters: tuple[Meter, ...]
    quotas: tuple[Quota, ...]


class Scopes:
    """Remembers them by plan and action: to put them together costs more than to look them up."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Plan, dict[str, Limits]]] = {}

    def of(self, key: str, plan: Plan, name: str) -> Limits:
        """Those of `<service>.<action>`; `key` tells plans and tenants' own limits apart."""
        known = self._known.get(key)
        if known is None or known[0] is not plan:
            known = self._known[key] = (plan, {})
        if not plan.rates and not plan.quotas:
            name = ""  # the same for all
        limits = known[1].get(name)
        if limits is None:
            if len(known[1]) >= _MOST:
                known[1].clear()  # names that nobody serves fill it too
            limits = known[1][name] = limits_of(plan, name)
        return limits


_MOST = 1_000


def limits_of(plan: Plan, name: str) -> Limits:
    """What a plan says of one action."""
    scopes = ("", name.partition(".")[0], name)
    own, *others = meters_of(plan)
    return Limits(
        (own, *(each for scope in scopes for each in others if each.name == scope)),
        tuple(quota for scope in scopes for quota in plan.quotas if quota.scope == scope),
    )


def meters_of(plan: Plan) -> tuple[Meter, ...]:
    """All rates of a plan, its own first."""
    own = Meter(OWN, plan.rate, plan.burst, plan.fail == "closed", plan.shadow)
    return own, *(
        Meter(rate.scope, rate.rate, rate.burst, rate.fail == "closed", rate.shadow)
        for rate in plan.rates
    )
