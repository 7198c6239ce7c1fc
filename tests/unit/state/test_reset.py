"""A reset hook that fails: it runs again only where that may help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tenantry import Context
from tenantry.bus import Bus
from tenantry.context.latest import Latest
from tenantry.errors import DeadlineExceeded, HandlerFailed, Unavailable
from tests.unit.core.fences import fence
from tests.unit.state.handling import Handling


@pytest.fixture
async def handling(bus: Bus) -> Handling:
    return await Handling.make(bus)


async def clear(ctx: Context) -> None:
    await ctx.state.clear()


async def odd(_ctx: Context) -> None:
    raise RuntimeError("odd")


async def busy(_ctx: Context) -> None:
    raise Unavailable("of the hook itself")


async def test_a_hook_clears_the_state(handling: Handling) -> None:
    await handling.handle(1, handling.add)
    await handling.stored.reset(handling.tenant, clear, fence(epoch=1))
    assert await handling.value("count") is None


@pytest.mark.parametrize("error", [Unavailable("away"), DeadlineExceeded("away")])
async def test_a_hook_may_run_again_when_nats_was_away(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def away(*_: object) -> None:
        raise error

    await handling.handle(1, handling.add)
    monkeypatch.setattr(Latest, "write", away)
    with pytest.raises(HandlerFailed) as caught:
        await handling.stored.reset(handling.tenant, clear, fence(epoch=1))
    assert caught.value.retry


@pytest.mark.parametrize("hook", [odd, busy])
async def test_a_hook_that_fails_of_itself_does_not_run_again(
    handling: Handling, hook: Callable[[Context], Awaitable[None]]
) -> None:
    with pytest.raises(HandlerFailed) as caught:
        await handling.stored.reset(handling.tenant, hook, fence(epoch=1))
    assert not caught.value.retry
