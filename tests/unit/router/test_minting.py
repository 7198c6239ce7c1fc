"""How long a minted context serves."""

from __future__ import annotations

import pytest

from tenantry.context.token import REMINT
from tenantry.messages import Plan
from tenantry_workers.router.admission import Contexts
from tests.unit.router.admitting import MINTER, STANDARD, verified


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def contexts(clock: Clock) -> Contexts:
    return Contexts(MINTER, clock=clock)


@pytest.mark.parametrize("seconds", [0.0, 1.0, REMINT - 0.001])
def test_a_context_serves_for_a_while(contexts: Contexts, clock: Clock, seconds: float) -> None:
    first = contexts.token("acme", STANDARD)
    clock.now += seconds
    assert contexts.token("acme", STANDARD) is first


@pytest.mark.parametrize("seconds", [REMINT, 2 * REMINT])
def test_then_it_is_minted_anew(contexts: Contexts, clock: Clock, seconds: float) -> None:
    first = contexts.token("acme", STANDARD)
    clock.now += seconds
    second = contexts.token("acme", STANDARD)
    assert verified(second, at=clock.now).issued - verified(first, at=clock.now).issued == seconds


@pytest.mark.parametrize("seconds", [0.01, 3600.0])
def test_a_clock_that_was_set_back_does_not_keep_one_from_the_future(
    contexts: Contexts, clock: Clock, seconds: float
) -> None:
    contexts.token("acme", STANDARD)
    clock.now -= seconds
    assert verified(contexts.token("acme", STANDARD), at=clock.now).issued <= clock.now


def test_another_plan_means_another_context(contexts: Contexts, clock: Clock) -> None:
    contexts.token("acme", STANDARD)
    other = contexts.token("acme", Plan(name="premium", retention=7200))
    claims = verified(other, at=clock.now)
    assert (claims.plan, claims.retention) == ("premium", 7200)


def test_a_changed_plan_of_the_same_name_means_another_context(
    contexts: Contexts, clock: Clock
) -> None:
    contexts.token("acme", STANDARD)
    other = contexts.token("acme", Plan(name="standard", retention=7200))
    assert verified(other, at=clock.now).retention == 7200


def test_each_tenant_has_its_own(contexts: Contexts) -> None:
    assert contexts.token("acme", STANDARD) != contexts.token("globex", STANDARD)


def test_what_would_be_minted_anew_is_forgotten(contexts: Contexts, clock: Clock) -> None:
    contexts.token("acme", STANDARD)
    clock.now += REMINT / 2
    kept = contexts.token("globex", STANDARD)
    clock.now += REMINT / 2
    contexts.forget_idle()
    assert set(contexts._minted) == {"globex"}
    assert contexts.token("globex", STANDARD) is kept
