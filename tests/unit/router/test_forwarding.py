"""What an admitted message looks like inside."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.bus import Bus
from tenantry.errors import BadMessage
from tenantry.wire import trace
from tenantry_workers.router.admission import Admission, Forward
from tenantry_workers.router.directory import Directory
from tests.unit.router.admitting import (
    ACTIONS,
    INBOX,
    STANDARD,
    TRACE,
    admission_of,
    admit,
    code,
    tenant,
    verified,
)


def test_what_comes_from_outside_is_dropped_and_the_rest_kept(admission: Admission) -> None:
    forward = admit(
        admission,
        Content_Type="text/plain",
        tenant_context="forged",
        TENANT_DEADLINE="9999999999999",
        Nats_Trace_Dest="x",
        nats_stream="JOURNAL",
        X_Own="mine",
        baggage="a=b",
    )
    assert set(forward.headers) == {
        "Content-Type",
        "X-Own",
        "Tenant-Context",
        "Tenant-Deadline",
        "Tenant-Timeout",
        "traceparent",
    }
    assert forward.headers["X-Own"] == "mine"


def test_it_carries_a_context_that_verifies(admission: Admission) -> None:
    claims = verified(admit(admission).headers["Tenant-Context"])
    assert (claims.tenant, claims.plan, claims.principal) == ("acme", "standard", "edge")
    assert claims.retention == STANDARD.retention
    assert (claims.weight, claims.concurrency) == (STANDARD.weight, STANDARD.concurrency)


def test_it_carries_the_trace_of_its_admission(admission: Admission) -> None:
    headers = admit(admission, traceparent="00-forged").headers
    assert trace.extract(headers) == TRACE


@pytest.mark.parametrize("name", ["Nats-Msg-Id", "nats-msg-id", "NATS-MSG-ID"])
@pytest.mark.parametrize("subject", ["edge.acme.orders.import", "edge.acme.orders.place"])
def test_a_message_id_is_made_the_tenants_own(
    admission: Admission, subject: str, name: str
) -> None:
    forward = admission.admit(subject, INBOX, {name: "m-1"}, 0, TRACE)
    found = {key: value for key, value in forward.headers.items() if key.lower() == name.lower()}
    assert found == {"Nats-Msg-Id": "acme.e.m-1"}


@pytest.mark.parametrize(
    "name",
    [
        "Nats-Expected-Stream",
        "Nats-Expected-Last-Sequence",
        "Nats-Expected-Last-Subject-Sequence",
        "nats-expected-last-msg-id",
        "Nats-TTL",
        "NATS-TTL",
        "Nats-Rollup",
        "Nats-Incr",
        "Nats-Schedule",
        "Nats-Schedule-Target",
        "Nats-Batch-Id",
        "Nats-Batch-Commit",
    ],
)
@pytest.mark.parametrize("action", ["import", "place"])
def test_what_would_change_a_publish_is_refused(
    admission: Admission, action: str, name: str
) -> None:
    with pytest.raises(BadMessage, match=name):
        admit(admission, f"edge.acme.orders.{action}", **{name: "1", "Nats-Msg-Id": "m-1"})


labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)
ids = st.text("ae.-1", min_size=1, max_size=12)


@given(st.lists(st.tuples(labels, ids), min_size=2, max_size=6, unique=True))
def test_no_two_tenants_share_a_message_id(senders: list[tuple[str, str]]) -> None:
    directory = Directory(Bus([]))
    directory.plans.rows["standard"] = STANDARD
    directory.actions |= ACTIONS
    admission = admission_of(directory)
    made = set()
    for name, msg_id in senders:
        directory.tenants.rows[name] = tenant(name)
        forward = admission.admit(
            f"edge.{name}.orders.import", "", {"Nats-Msg-Id": msg_id}, 0, TRACE
        )
        made.add(forward.headers["Nats-Msg-Id"])
    assert len(made) == len(senders)


@pytest.mark.parametrize(("length", "taken"), [(128, True), (129, False)])
def test_a_message_id_is_not_too_long(admission: Admission, length: int, taken: bool) -> None:
    if taken:
        assert admit(admission, Nats_Msg_Id="x" * length)
    else:
        assert code(admission, Nats_Msg_Id="x" * length) == "bad_message"


def test_an_empty_message_id_is_none(admission: Admission) -> None:
    assert "Nats-Msg-Id" not in admit(admission, Nats_Msg_Id="").headers


def test_without_headers_it_has_those_of_the_mesh(admission: Admission) -> None:
    assert set(admit(admission).headers) == {
        "Tenant-Context",
        "Tenant-Deadline",
        "Tenant-Timeout",
        "traceparent",
    }


def test_a_command_lives_as_long_as_the_plan_keeps_it(admission: Admission) -> None:
    headers = admit(admission, "edge.acme.orders.import").headers
    assert headers["Nats-TTL"] == "3600s"
    assert "Tenant-Deadline" not in headers


@pytest.mark.parametrize("headers", [{}, {"X_Own": "mine"}])
def test_its_body_counts_for_what_the_journal_may_hold(
    directory: Directory, headers: dict[str, str]
) -> None:
    directory.plans.rows["standard"] = msgspec.structs.replace(STANDARD, journal_bytes=1500)
    admission = admission_of(directory)
    admit(admission, "edge.acme.orders.import", size=900, **headers)
    assert code(admission, "edge.acme.orders.import", size=900, **headers) == "quota_exceeded"


def test_a_request_is_not_kept(admission: Admission) -> None:
    assert "Nats-TTL" not in admit(admission).headers


def remaining(forward: Forward) -> float:
    return int(forward.headers["Tenant-Deadline"]) / 1000 - time.time()


@pytest.mark.parametrize(
    ("action", "asked", "seconds"),
    [
        ("place", None, 10.0),  # the action's own
        ("slow", None, 20.0),  # the plan's
        ("place", "2.5", 2.5),
        ("place", "86399", 10.0),
        ("slow", "15", 15.0),
        ("place", "1e-2", 0.01),
    ],
)
def test_the_deadline_is_the_nearest_of_action_plan_and_asker(
    admission: Admission, action: str, asked: str | None, seconds: float
) -> None:
    headers = {} if asked is None else {"tenant_timeout": asked}
    forward = admit(admission, f"edge.acme.orders.{action}", **headers)
    assert remaining(forward) == pytest.approx(seconds, abs=0.5)
    assert float(forward.headers["Tenant-Timeout"]) == seconds


@pytest.mark.parametrize(
    "asked", ["0", "-1", "soon", "nan", "inf", "-inf", "86400", "1e300", "2s", "0x10", "\0"]
)
def test_a_time_that_is_none_is_refused(admission: Admission, asked: str) -> None:
    assert code(admission, Tenant_Timeout=asked) == "bad_message"


def test_a_command_has_no_time_to_ask_for(admission: Admission) -> None:
    assert admit(admission, "edge.acme.orders.import", Tenant_Timeout="soon")
