"""What a context, a token and a trace do at their edges."""

from __future__ import annotations

import contextvars
import subprocess
import sys

import pytest

from tenantry.context import context as contexts
from tenantry.context.token import terms
from tenantry.errors import DeadlineExceeded, Hopeless, TooMuchEmitted
from tenantry.runtime.runner import _tenant
from tenantry.service.retry import Retry
from tenantry.subjects import Address
from tenantry.wire import trace
from tests import covered
from tests.unit.core.fences import fence
from tests.unit.core.test_context import context


def test_a_plan_that_is_gone_has_no_terms() -> None:
    assert terms(None) == {}


def test_a_log_is_bound_once() -> None:
    ctx = context()
    assert ctx.log is ctx.log


def test_a_cancelled_schedule_leaves_the_others() -> None:
    ctx = context()
    ctx.send("billing.charge", {})
    first = ctx.send("billing.charge", {}, after=60)
    second = ctx.send("billing.charge", {}, after=60)
    ctx.cancel(second)
    _, kept, gone = ctx.close()
    assert kept.subject.endswith(first)
    assert kept.body
    assert gone.subject.endswith(second)
    assert not gone.body


async def test_nobody_is_asked_in_a_replay() -> None:
    ctx = context(fence=fence(replaying=True))
    with pytest.raises(Hopeless):
        await ctx.request("billing.total", {}, type=int)
    assert ctx.fence.suppressed == 1


async def test_nobody_is_asked_when_the_time_is_over() -> None:
    ctx = context()
    with pytest.raises(DeadlineExceeded):
        await ctx._mesh.request(ctx, Address("acme", "billing", "total"), b"{}", 0.0)


def test_outside_of_a_message_there_is_no_tenant() -> None:
    assert contextvars.Context().run(_tenant) is None


@pytest.mark.parametrize("ids", [f"{'0' * 32}-{'1' * 16}", f"{'1' * 32}-{'0' * 16}"])
@pytest.mark.parametrize("version", ["00", "01"])
def test_a_trace_of_zeros_is_none(version: str, ids: str) -> None:
    assert trace.extract({"traceparent": f"{version}-{ids}-01"}) is None


def test_a_tracer_of_the_environment_is_set_up_at_once() -> None:
    program = (
        "from opentelemetry import trace; import tenantry.wire.trace;"
        "print(type(trace._TRACER_PROVIDER).__name__)"
    )
    env = covered.environment() | {"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "TracerProvider", done.stderr


# how much one message may emit


def test_a_message_may_emit_a_thousand_messages() -> None:
    ctx = context()
    for number in range(1000):
        ctx.send("billing.charge", number)
    assert len(ctx.close()) == 1000


def test_a_message_may_emit_no_more_than_a_thousand_messages() -> None:
    ctx = context()
    for number in range(1000):
        ctx.send("billing.charge", number)
    with pytest.raises(TooMuchEmitted, match=r"1,000 messages of 8 MiB in all \(split the work"):
        ctx.send("billing.charge", 1000)


def test_a_cancellation_counts_as_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "MAX_MESSAGES", 1)
    ctx = context()
    ctx.cancel("0" * 32)
    with pytest.raises(TooMuchEmitted):
        ctx.cancel("1" * 32)


def test_the_bodies_may_have_8_mib_in_all() -> None:
    ctx = context()
    for _ in range(8):
        ctx.send("billing.charge", "x" * (1024 * 1024 - 2))
    assert sum(len(each.body) for each in ctx.close()) == contexts.MAX_BYTES


def test_the_bodies_may_have_no_more_than_8_mib() -> None:
    ctx = context()
    for _ in range(8):
        ctx.send("billing.charge", "x" * (1024 * 1024 - 2))
    with pytest.raises(TooMuchEmitted):
        ctx.send("billing.charge", 1)


def test_what_is_held_back_in_a_replay_is_not_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "MAX_MESSAGES", 0)
    ctx = context(fence=fence(replaying=True))
    ctx.send("billing.charge", 1)
    assert ctx.close() == ()


def test_too_much_is_never_tried_again() -> None:
    assert not Retry().may_help(TooMuchEmitted("too much"))
