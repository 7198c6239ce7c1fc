"""Commands for later: the times a handler may give, what is staged, and under which ids."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest

from tenantry import subjects
from tenantry.context import schedule
from tenantry.context.context import Context, ContextClosed, Staged
from tenantry.errors import BadSubject
from tests.unit.core.test_context import context

NOW = 1_763_700_000.0
YEAR = 366 * 86_400


def due(after: Any = None, at: Any = None) -> float | None:
    return schedule.due_time(after, at, NOW)


def test_without_a_time_it_is_due_at_once() -> None:
    assert due() is None


def test_after_counts_from_now() -> None:
    assert due(after=60) == NOW + 60


def test_after_may_be_a_fraction() -> None:
    assert due(after=0.25) == NOW + 0.25


def test_after_may_be_nothing() -> None:
    assert due(after=0) == NOW


def test_at_is_seconds_since_the_epoch() -> None:
    assert due(at=NOW + 60) == NOW + 60


def test_at_may_be_a_datetime_of_any_zone() -> None:
    zone = dt.timezone(dt.timedelta(hours=5))
    assert due(at=dt.datetime.fromtimestamp(NOW + 60, zone)) == NOW + 60


def test_at_may_be_past() -> None:
    assert due(at=NOW - 60) == NOW - 60


def test_the_last_moment_is_a_year_ahead() -> None:
    assert due(after=YEAR) == due(at=NOW + YEAR) == NOW + YEAR


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"after": 60, "at": NOW}, "not both"),
        ({"after": -1}, "after= is -1"),
        ({"at": -1}, "at= is -1"),
        ({"after": float("nan")}, "after= is nan"),
        ({"after": float("inf")}, "after= is inf"),
        ({"after": YEAR + 1}, "after= is more than 366 days ahead"),
        ({"at": NOW + YEAR + 1}, "at= is more than 366 days ahead"),
        ({"at": NOW * 1000}, "at= is more than 366 days ahead"),
        ({"at": dt.datetime(2026, 1, 1)}, "no time zone"),
        ({"at": dt.datetime.max.replace(tzinfo=dt.UTC)}, "at= is more than 366 days ahead"),
    ],
)
def test_a_time_that_can_not_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        due(**given)


@pytest.mark.parametrize("given", ["60", True, dt.timedelta(seconds=60), b"1", [1]])
@pytest.mark.parametrize("name", ["after", "at"])
def test_what_is_no_time_is_refused(name: str, given: Any) -> None:
    with pytest.raises(TypeError, match=f"{name}= takes seconds"):
        due(**{name: given})


def test_a_refused_time_stages_nothing() -> None:
    ctx = context()
    with pytest.raises(ValueError, match="after="):
        ctx.send("billing.charge", {}, after=-1)
    assert ctx.close() == ()


@pytest.mark.parametrize("command", ["charge", "billing.", "Billing.charge", "a.b.c", "a.*"])
def test_what_names_no_command_is_refused(command: str) -> None:
    with pytest.raises(BadSubject):
        context().send(command, {}, after=1)


def test_at_once_has_no_id() -> None:
    ctx = context()
    assert ctx.send("billing.charge", {}) is None  # type: ignore[func-returns-value]


def test_it_waits_under_the_tenant_and_the_sender() -> None:
    ctx = context("globex", "orders")
    name = ctx.send("billing.charge", {"n": 1}, after=60)
    (staged,) = ctx.close()
    assert (staged.subject, staged.body) == (f"schedule.globex.orders.{name}", b'{"n":1}')
    assert staged.headers["Tenant-Command"] == "billing.charge"


def test_its_timer_tells_nats_server() -> None:
    ctx = context("globex", "orders")
    name = ctx.send("billing.charge", {}, at=1_763_700_000.1234)
    timer = _timer(ctx.close()[0])
    assert (timer.subject, timer.body) == (f"timer.globex.orders.{name}", b"")
    assert timer.headers["Nats-Schedule"] == "@at 2025-11-21T04:40:00.123Z"
    assert timer.headers["Nats-Schedule-Target"] == f"due.globex.orders.{name}"
    assert timer.headers["Tenant-Due"] == "1763700000123"


def test_it_says_what_caused_it_and_in_which_place() -> None:
    ctx = context(seq=17)
    for _ in range(2):
        ctx.send("billing.charge", {}, after=60)
    assert [_timer(each).headers["Tenant-Order"] for each in ctx.close()] == ["17.0", "17.1"]


def test_a_redelivery_draws_the_same_id() -> None:
    assert _ids(context(attempt=1)) == _ids(context(attempt=7))


@pytest.mark.parametrize(
    "other",
    [
        context("globex"),
        context(service="billing"),
        context(action="other"),
        context(message_id="m2"),
    ],
)
def test_another_cause_draws_others(other: Context) -> None:
    assert not set(_ids(context())) & set(_ids(other))


def test_each_of_a_handler_has_its_own_id() -> None:
    assert len(set(_ids(context()))) == 3


def test_an_id_is_32_hex_digits() -> None:
    assert all(subjects.is_schedule(name) for name in _ids(context()))


def test_cancelling_takes_the_place_of_both_for_a_moment() -> None:
    ctx = context("globex", "orders")
    ctx.cancel("0" * 32)
    (gone,) = ctx.close()
    assert (gone.subject, gone.body, gone.msg_id) == (f"schedule.globex.orders.{'0' * 32}", b"", "")
    assert _timer(gone).subject == f"timer.globex.orders.{'0' * 32}"
    assert gone.headers == _timer(gone).headers == {"Nats-TTL": "1s"}


def test_what_is_cancelled_at_once_leaves_its_place_to_nobody() -> None:
    ctx, plain = context(), context()
    name = ctx.send("a.b", 1, after=60)
    ctx.send("a.b", 2)
    ctx.cancel(name)
    ctx.send("a.b", 3)
    for body in range(3):
        plain.send("a.b", body)
    staged = ctx.close()
    assert [each.body for each in staged] == [b"", b"2", b"3"]
    assert [each.msg_id for each in staged[1:]] == [each.msg_id for each in plain.close()[1:]]


@pytest.mark.parametrize(
    "name", ["", "0" * 31, "0" * 33, "G" * 32, "*", ">", "a.b", "0" * 31 + "\n"]
)
def test_what_is_no_id_can_not_be_cancelled(name: str) -> None:
    with pytest.raises(ValueError, match="no schedule's id"):
        context().cancel(name)


def test_after_the_message_nothing_is_cancelled() -> None:
    ctx = context()
    ctx.close()
    with pytest.raises(ContextClosed):
        ctx.cancel("0" * 32)


def test_the_time_is_of_now() -> None:
    ctx = context()
    before = time.time()
    ctx.send("a.b", 1, after=60)
    due = int(ctx.close()[0].headers["Tenant-Due"]) / 1000
    assert before + 59.999 <= due <= time.time() + 60.001


def _ids(ctx: Context) -> list[str]:
    return [ctx.send("billing.charge", {}, after=60) for _ in range(3)]


def _timer(staged: Staged) -> Staged:
    assert staged.timer is not None
    return staged.timer
