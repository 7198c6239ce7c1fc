"""Admission: each verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import errors
from tenantry.bus import Bus
from tenantry.bus.connection import HEADROOM
from tenantry.errors import RateLimited, Rejection
from tenantry.messages import Plan
from tenantry_workers.router.admission import Admission, Ignored
from tenantry_workers.router.directory import Directory
from tests.unit.router.admitting import (
    ACTIONS,
    STANDARD,
    TRACE,
    admission_of,
    admit,
    code,
    tenant,
)


def test_a_public_request_is_forwarded(admission: Admission) -> None:
    assert admit(admission).subject == "request.acme.orders.place"


def test_a_public_command_is_forwarded_to_the_journal(admission: Admission) -> None:
    assert admit(admission, "edge.acme.orders.import").subject == "tenant.acme.orders.import"


def test_a_command_waits_in_the_journal_where_nobody_is_there(admission: Admission) -> None:
    assert admit(admission, "edge.acme.orders.later").subject == "tenant.acme.orders.later"


def test_what_asks_for_no_answer_is_forwarded(admission: Admission) -> None:
    assert admit(admission, reply="").subject == "request.acme.orders.place"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nobody", "tenant_unknown"),
        ("gone", "tenant_unknown"),
        ("asleep", "tenant_suspended"),
        ("lost", "tenant_unknown"),
        ("*", "tenant_unknown"),
        ("", "tenant_unknown"),
        ("Acme", "tenant_unknown"),
    ],
)
def test_a_tenant_that_may_not_send_is_refused(
    admission: Admission, name: str, expected: str
) -> None:
    assert code(admission, f"edge.{name}.orders.place", reply=f"_INBOX.{name}.x") == expected


@pytest.mark.parametrize("name", ["nobody", "gone", "asleep"])
def test_who_may_not_send_is_told_a_few_times_and_then_ignored(
    admission: Admission, name: str
) -> None:
    for _ in range(10):
        assert code(admission, f"edge.{name}.orders.place").startswith("tenant_")
    with pytest.raises(Ignored):
        admit(admission, f"edge.{name}.orders.place")
    assert admit(admission)


def test_one_that_is_ignored_takes_no_answers_from_another(admission: Admission) -> None:
    for _ in range(10):
        code(admission, "edge.nobody.orders.place")
    with pytest.raises(Ignored):
        admit(admission, "edge.nobody.orders.place")
    assert code(admission, "edge.asleep.orders.place") == "tenant_suspended"


def test_a_tenant_that_was_ignored_has_its_whole_rate_again(
    directory: Directory, admission: Admission
) -> None:
    for _ in range(10):
        code(admission, "edge.asleep.orders.place")
    directory.tenants.rows["asleep"] = tenant("asleep")
    assert admit(admission, "edge.asleep.orders.place", reply="_INBOX.asleep.x")


def test_a_deleted_and_an_unknown_tenant_look_the_same(admission: Admission) -> None:
    told = []
    for name in ("nobody", "gone"):
        with pytest.raises(errors.TenantUnknown) as caught:
            admit(admission, f"edge.{name}.orders.place")
        told.append(str(caught.value))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "action",
    [
        "orders.nothing",
        "nothing.place",
        "orders.inside",
        "orders.hidden",
        "orders.placed",
        "orders.*",
        "*.place",
        "orders.>",
        ".",
        "Orders.place",
    ],
)
def test_what_is_not_a_public_request_or_command_is_unknown(
    admission: Admission, action: str
) -> None:
    assert code(admission, f"edge.acme.{action}") == "unknown_action"


def test_a_hidden_and_a_missing_action_look_the_same(admission: Admission) -> None:
    told = []
    for action in ("orders.inside", "orders.nothin"):
        with pytest.raises(errors.UnknownAction) as caught:
            admit(admission, f"edge.acme.{action}")
        told.append(str(caught.value).replace(action, "-"))
    assert told[0] == told[1]


def test_a_request_that_nobody_serves_is_refused_at_once(admission: Admission) -> None:
    with pytest.raises(errors.Unavailable) as caught:
        admit(admission, "edge.acme.orders.idle")
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("subject", ["edge.acme", "edge.acme.orders", "edge.acme.orders.place.now"])
def test_a_subject_of_another_length_is_refused(admission: Admission, subject: str) -> None:
    assert code(admission, subject) == "bad_subject"


@pytest.mark.parametrize(
    "reply",
    [
        "_INBOX.globex.x",
        "_INBOX.acme",
        "_INBOX.acme2.x",
        "_INBOX.acme-2.x",
        "_INBOX.x",
        "_inbox.acme.x",
        "$JS.API.STREAM.DELETE.JOURNAL",
        "$KV.tenants.acme",
        "tenant.acme.orders.placed",
        "request.acme.orders.place",
        "x._INBOX.acme.x",
    ],
)
def test_an_answer_goes_to_the_tenants_own_inbox_and_nowhere_else(
    admission: Admission, reply: str
) -> None:
    assert code(admission, reply=reply) == "bad_reply"


@pytest.mark.parametrize(("size", "fits"), [(0, True), (1000, True), (1001, False)])
def test_a_body_is_as_large_as_the_plan_allows(admission: Admission, size: int, fits: bool) -> None:
    if fits:
        assert admit(admission, size=size)
    else:
        assert code(admission, size=size) == "too_large"


def test_headers_are_not_too_long_either(admission: Admission) -> None:
    assert admit(admission, X_Own="x" * 8000)
    assert code(admission, X_Own="x" * 8192) == "too_large"
    assert code(admission, **{f"X_{number}": "x" * 100 for number in range(80)}) == "too_large"


def test_over_the_rate_a_message_is_refused(directory: Directory) -> None:
    directory.plans.rows["standard"] = Plan(name="standard", rate=0.5, burst=2)
    admission = admission_of(directory)
    admit(admission)
    admit(admission)
    with pytest.raises(RateLimited) as caught:
        admit(admission)
    refusal = caught.value
    assert refusal.retry_after == pytest.approx(2.0, abs=0.5)
    assert refusal.extensions == {
        "violated_policies": ["default"],
        "plan": "standard",
        "quota": 2,
        "window": 4,
    }


def test_another_tenant_keeps_its_own_rate(directory: Directory) -> None:
    directory.plans.rows["standard"] = Plan(name="standard", rate=0.5, burst=1)
    admission = admission_of(directory)
    admit(admission)
    assert code(admission) == "rate_limited"
    assert admit(admission, "edge.globex.orders.place", reply="_INBOX.globex.x")


def test_what_is_refused_counts_against_the_rate(directory: Directory) -> None:
    """Else guessing names would cost nothing."""
    directory.plans.rows["standard"] = Plan(name="standard", rate=0.5, burst=2)
    admission = admission_of(directory)
    assert code(admission, "edge.acme.orders.nothing") == "unknown_action"
    assert code(admission, reply="_INBOX.globex.x") == "bad_reply"
    assert code(admission) == "rate_limited"


def test_another_plan_holds_from_the_next_message_on(directory: Directory) -> None:
    admission = admission_of(directory)
    assert code(admission, size=2000) == "too_large"
    directory.plans.rows["big"] = Plan(name="big", max_body=5000)
    directory.tenants.rows["acme"] = tenant("acme", plan="big")
    assert admit(admission, size=2000)


def test_no_plan_allows_more_than_nats_has_room_for(directory: Directory) -> None:
    directory.plans.rows["standard"] = Plan(name="standard", max_body=10_000_000)
    admission = admission_of(directory)
    assert admit(admission, "edge.acme.orders.import", size=2**20 - HEADROOM)
    assert code(admission, "edge.acme.orders.import", size=2**20 - HEADROOM + 1) == "too_large"


@pytest.mark.parametrize("headers", [{"X": "\u00e9" * 4200}, {f"x{n}": "" for n in range(1500)}])
def test_headers_are_counted_as_the_wire_has_them(
    admission: Admission, headers: dict[str, str]
) -> None:
    assert code(admission, **headers) == "too_large"


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=20), st.text(max_size=10))
def test_whatever_comes_is_forwarded_under_its_own_tenant_or_refused(
    rest: str, reply: str, name: str, value: str
) -> None:
    directory = Directory(Bus([]))
    directory.plans.rows["standard"] = STANDARD
    directory.tenants.rows["acme"] = tenant("acme")
    directory.actions |= ACTIONS
    admission = admission_of(directory)
    for subject in (f"edge.{rest}", f"edge.acme.{rest}"):
        try:
            forward = admission.admit(subject, reply, {name: value}, 0, TRACE)
        except Rejection:
            continue
        assert forward.subject.split(".")[1] == "acme"
        assert not reply or reply.startswith("_INBOX.acme.")
