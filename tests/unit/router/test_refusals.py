"""Where a rejection goes, and what it says of the rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import RateLimited, Unavailable
from tenantry.messages import Plan
from tenantry_workers.router.admission import Limited, check_limits, may_answer, rate_fields
from tenantry_workers.router.directory import Directory
from tenantry_workers.router.limits import Decision, Meter
from tenantry_workers.router.limits.meter import Resume
from tenantry_workers.router.quotas import Verdict
from tenantry_workers.router.scopes import Limits
from tests.unit.router.admitting import STANDARD, admission_of, admit


@pytest.mark.parametrize(
    ("subject", "reply", "may"),
    [
        ("edge.acme.orders.place", "_INBOX.acme.x", True),
        ("edge.acme", "_INBOX.acme.x.y", True),
        ("edge.nobody.a.b", "_INBOX.nobody.x", True),
        ("edge.acme.orders.place", "", False),
        ("edge.acme.orders.place", "_INBOX.acme", False),
        ("edge.acme.orders.place", "_INBOX.globex.x", False),
        ("edge.acme.orders.place", "_INBOX.acme.", False),
        ("edge.acme.orders.place", "_INBOX.acme.*", False),
        ("edge.acme.orders.place", "_INBOX.acme.x.>", False),
        ("edge.acme.orders.place", "_INBOX.acme..x", False),
        ("edge.acme.orders.place", "_INBOX.acme.x\n", False),
        ("edge.acme.orders.place", "$KV.tenants.acme", False),
        ("edge.*.orders.place", "_INBOX.*.x", False),
        ("edge.>.orders.place", "_INBOX.>.x", False),
        ("edge..orders.place", "_INBOX..x", False),
        ("edge.Acme.orders.place", "_INBOX.Acme.x", False),
    ],
)
def test_a_rejection_goes_to_the_inbox_of_the_subjects_tenant(
    subject: str, reply: str, may: bool
) -> None:
    assert may_answer(subject, reply) == may


@given(st.text(max_size=20), st.text(max_size=30))
def test_no_rejection_goes_anywhere_but_to_a_tenants_inbox(name: str, reply: str) -> None:
    if may_answer(f"edge.{name}.a.b", reply):
        assert reply.split(".")[:2] == ["_INBOX", name]
        assert not set(reply) & set("*> \t\r\n\0")


@pytest.mark.parametrize(
    ("wait", "reset"), [(0.2, 1), (1.0, 1), (1.2, 2), (30.0, 30), (None, 1), (0.0, 1)]
)
def test_the_rate_fields_name_the_meter_and_tell_its_state(wait: float | None, reset: int) -> None:
    refusal = RateLimited(
        "no", retry_after=wait, violated_policies=["imports"], quota=100, window=2
    )
    assert rate_fields(refusal) == {
        "RateLimit-Policy": '"imports";q=100;w=2',
        "RateLimit": f'"imports";r=0;t={reset}',
    }


@pytest.mark.parametrize(
    ("rate", "burst", "window"), [(50.0, 100, 2), (1000.0, 10, 1), (0.3, 1, 4), (3.0, 10, 4)]
)
def test_the_window_is_what_a_full_burst_takes(
    directory: Directory, rate: float, burst: int, window: int
) -> None:
    class Refusing:
        def take(self, tenant: str, meters: Sequence[Meter], now: float) -> Decision:
            return Decision(False, meters[0], 0, 0.1)

        def park(self, tenant: str, meters: Sequence[Meter], resume: Resume) -> None:
            resume(self.take(tenant, meters, 0.0))

    directory.plans.rows["standard"] = Plan(name="standard", rate=rate, burst=burst)
    with pytest.raises(RateLimited) as caught:
        admit(admission_of(directory, Refusing()))
    assert f";w={window}" in rate_fields(caught.value)["RateLimit-Policy"]


# what can't be told


def limited(**fields: Any) -> Limited:
    common = {"tenant": "acme", "plan": STANDARD, "limits": Limits((), ())}
    return Limited(**(common | {"decision": None} | fields))


def decision(**fields: Any) -> Decision:
    return Decision(**({"allowed": True, "meter": METER, "remaining": 1} | fields))


METER = Meter("plan", 1.0, 1)


def test_what_the_rates_do_not_say_yet_is_waited_for() -> None:
    assert not limited().known
    assert limited(decision=decision()).known


def test_who_may_not_send_waits_for_nothing() -> None:
    assert limited(refusal=Unavailable("no")).known


def test_no_quota_is_asked_before_the_rates_are_known(directory: Directory) -> None:
    unknown = limited()
    assert admission_of(directory).count(unknown) is unknown


def test_a_rate_that_cannot_be_told_refuses_for_now() -> None:
    away = limited(decision=decision(allowed=False, away=True, retry_after=1.0))
    with pytest.raises(Unavailable):
        check_limits(away)


def test_a_quota_that_cannot_be_told_refuses_for_now() -> None:
    with pytest.raises(Unavailable):
        check_limits(limited(decision=decision(), verdict=Verdict(away=True)))
    check_limits(limited(decision=decision(), verdict=Verdict()))
