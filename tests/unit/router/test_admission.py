"""Admission: each verdict, and what an admitted message looks like inside.

The directory is the real one; its tables are filled by hand instead of by watches.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import errors
from tenantry.bus import Bus
from tenantry.context.token import REMINT, KeyRing, Minter
from tenantry.errors import RateLimited, Rejection
from tenantry.messages import Plan, Tenant
from tenantry.wire import trace
from tenantry_workers.router.admission import (
    Admission,
    Contexts,
    Forward,
    Ignored,
    may_answer,
    rate_fields,
)
from tenantry_workers.router.directory import Directory, Known
from tenantry_workers.router.limiter import Grant, LocalLimiter

MINTER = Minter("k1", b"\1" * 32)
TRACE = trace.Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
INBOX = "_INBOX.acme.x1.7"

STANDARD = Plan(name="standard", max_body=1000, retention=3600, timeout=20.0)
ACTIONS = {
    "orders.place": Known("request", True, 10.0, True),
    "orders.slow": Known("request", True, 90.0, True),
    "orders.idle": Known("request", True, 10.0, False),
    "orders.import": Known("command", True, 60.0, True),
    "orders.later": Known("command", True, 60.0, False),
    "orders.inside": Known("request", False, 10.0, True),
    "orders.hidden": Known("command", False, 10.0, True),
    "orders.placed": Known("event", True, 30.0, True),
}


def tenant(name: str, **fields: Any) -> Tenant:
    return Tenant(id=name, **({"plan": "standard", "created": 0.0, "updated": 0.0} | fields))


@pytest.fixture
def directory() -> Directory:
    directory = Directory(Bus(["nats://127.0.0.1:1"]))
    directory.plans.rows["standard"] = STANDARD
    for one in (
        tenant("acme"),
        tenant("globex"),
        tenant("asleep", state="suspended"),
        tenant("gone", state="deleted"),
        tenant("lost", plan="nowhere"),
    ):
        directory.tenants.rows[one.id] = one
    directory.actions |= ACTIONS
    return directory


@pytest.fixture
def admission(directory: Directory) -> Admission:
    return Admission(directory, LocalLimiter(), Contexts(MINTER))


def admit(
    admission: Admission,
    subject: str = "edge.acme.orders.place",
    *,
    reply: str = INBOX,
    size: int = 10,
    **headers: str,
) -> Forward:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return admission.admit(subject, reply, fields, size, TRACE)


def code(admission: Admission, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Rejection) as caught:
        admit(admission, *arguments, **options)
    return caught.value.code


# verdicts


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
    admission = Admission(directory, LocalLimiter(), Contexts(MINTER))
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
    admission = Admission(directory, LocalLimiter(), Contexts(MINTER))
    admit(admission)
    assert code(admission) == "rate_limited"
    assert admit(admission, "edge.globex.orders.place", reply="_INBOX.globex.x")


def test_what_is_refused_counts_against_the_rate(directory: Directory) -> None:
    """Else guessing names would cost nothing."""
    directory.plans.rows["standard"] = Plan(name="standard", rate=0.5, burst=2)
    admission = Admission(directory, LocalLimiter(), Contexts(MINTER))
    assert code(admission, "edge.acme.orders.nothing") == "unknown_action"
    assert code(admission, reply="_INBOX.globex.x") == "bad_reply"
    assert code(admission) == "rate_limited"


def test_another_plan_holds_from_the_next_message_on(directory: Directory) -> None:
    admission = Admission(directory, LocalLimiter(), Contexts(MINTER))
    assert code(admission, size=2000) == "too_large"
    directory.plans.rows["big"] = Plan(name="big", max_body=5000)
    directory.tenants.rows["acme"] = tenant("acme", plan="big")
    assert admit(admission, size=2000)


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=20), st.text(max_size=10))
def test_whatever_comes_is_forwarded_under_its_own_tenant_or_refused(
    rest: str, reply: str, name: str, value: str
) -> None:
    directory = Directory(Bus([]))
    directory.plans.rows["standard"] = STANDARD
    directory.tenants.rows["acme"] = tenant("acme")
    directory.actions |= ACTIONS
    admission = Admission(directory, LocalLimiter(), Contexts(MINTER))
    for subject in (f"edge.{rest}", f"edge.acme.{rest}"):
        try:
            forward = admission.admit(subject, reply, {name: value}, 0, TRACE)
        except Rejection:
            continue
        assert forward.subject.split(".")[1] == "acme"
        assert not reply or reply.startswith("_INBOX.acme.")


# what is forwarded


def test_what_comes_from_outside_is_dropped_and_the_rest_kept(admission: Admission) -> None:
    forward = admit(
        admission,
        Content_Type="text/plain",
        tenant_context="forged",
        TENANT_DEADLINE="9999999999999",
        Nats_Expected_Last_Subject_Sequence="0",
        nats_rollup="all",
        X_Own="mine",
        baggage="a=b",
    )
    assert set(forward.headers) == {
        "Content-Type",
        "X-Own",
        "Tenant-Context",
        "Tenant-Deadline",
        "traceparent",
    }
    assert forward.headers["X-Own"] == "mine"


def test_it_carries_a_context_that_verifies(admission: Admission) -> None:
    claims = verified(admit(admission).headers["Tenant-Context"])
    assert (claims.tenant, claims.plan, claims.principal) == ("acme", "standard", "edge")
    assert claims.retention == STANDARD.retention


def verified(token: str, name: str = "acme", at: float | None = None) -> Any:
    ring = KeyRing()
    ring.replace({MINTER.kid: (MINTER.public_key, None)})
    return ring.verify(token, name, time.time() if at is None else at)


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


labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)
ids = st.text("ae.-1", min_size=1, max_size=12)


@given(st.lists(st.tuples(labels, ids), min_size=2, max_size=6, unique=True))
def test_no_two_tenants_share_a_message_id(senders: list[tuple[str, str]]) -> None:
    directory = Directory(Bus([]))
    directory.plans.rows["standard"] = STANDARD
    directory.actions |= ACTIONS
    admission = Admission(directory, LocalLimiter(), Contexts(MINTER))
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
    assert set(admit(admission).headers) == {"Tenant-Context", "Tenant-Deadline", "traceparent"}


def test_a_command_lives_as_long_as_the_plan_keeps_it(admission: Admission) -> None:
    headers = admit(admission, "edge.acme.orders.import", Nats_TTL="never").headers
    assert headers["Nats-TTL"] == "3600s"
    assert "Tenant-Deadline" not in headers


def test_a_request_is_not_kept(admission: Admission) -> None:
    assert "Nats-TTL" not in admit(admission, Nats_TTL="1h").headers


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


@pytest.mark.parametrize(
    "asked", ["0", "-1", "soon", "nan", "inf", "-inf", "86400", "1e300", "2s", "0x10", "\0"]
)
def test_a_time_that_is_none_is_refused(admission: Admission, asked: str) -> None:
    assert code(admission, Tenant_Timeout=asked) == "bad_message"


def test_a_command_has_no_time_to_ask_for(admission: Admission) -> None:
    assert admit(admission, "edge.acme.orders.import", Tenant_Timeout="soon")


# contexts


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


@pytest.mark.parametrize("seconds", [REMINT, 10 * REMINT])
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


# rejections


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
def test_the_rate_fields_tell_policy_and_state(wait: float | None, reset: int) -> None:
    refusal = RateLimited("no", retry_after=wait, quota=100, window=2)
    assert rate_fields(refusal) == {
        "RateLimit-Policy": '"default";q=100;w=2',
        "RateLimit": f'"default";r=0;t={reset}',
    }


@pytest.mark.parametrize(
    ("rate", "burst", "window"), [(50.0, 100, 2), (1000.0, 10, 1), (0.3, 1, 4), (3.0, 10, 4)]
)
def test_the_window_is_what_a_full_burst_takes(
    directory: Directory, rate: float, burst: int, window: int
) -> None:
    class Refusing:
        def take(self, tenant: str, plan: Plan, now: float) -> Grant:
            return Grant(False, 0, 0.1)

    directory.plans.rows["standard"] = Plan(name="standard", rate=rate, burst=burst)
    with pytest.raises(RateLimited) as caught:
        admit(Admission(directory, Refusing(), Contexts(MINTER)))
    assert f";w={window}" in rate_fields(caught.value)["RateLimit-Policy"]
