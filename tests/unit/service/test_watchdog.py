"""A handler that blocks the event loop is named in the log; one that waits is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tenantry import Context, Service
from tenantry.runtime import watchdog
from tenantry.runtime.watchdog import BLOCKED, HOGGED, Watchdog
from tests.unit.bus.station import until


class Clock:
    """The watchdog's clock, which moves when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "_TICK", 0.01)
    return clock


@pytest.fixture
def logged(clock: Clock) -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


def block(clock: Clock, logged: list[Any], seconds: float = 2 * BLOCKED) -> None:
    """Block the loop until the watchdog has said so, at most for 10 s."""
    clock.now += seconds
    for _ in range(1000):
        if logged:
            return
        time.sleep(0.01)


async def test_a_loop_that_is_blocked_is_told_with_the_line(
    clock: Clock, logged: list[Any]
) -> None:
    async with Watchdog():
        block(clock, logged)
    assert logged[0]["event"] == "event loop blocked"
    assert logged[0]["seconds"] == 2 * BLOCKED
    assert "test_watchdog.py" in logged[0]["at"]
    assert logged[0]["at"].endswith(" block")


async def test_it_is_told_once_each_time(clock: Clock, logged: list[Any]) -> None:
    async with Watchdog():
        for _ in range(2):
            logged.clear()
            block(clock, logged)
            clock.now += 2 * BLOCKED
            time.sleep(0.1)  # it is still blocked
            await until(lambda: len(logged) > 1)
            events = [each["event"] for each in logged]
            assert events == ["event loop blocked", "event loop goes on"]
            assert logged[1]["after"] == 4 * BLOCKED


def service_of(clock: Clock, logged: list[Any]) -> Service:
    service = Service("shop")

    @service.command("slow")
    async def slow(_ctx: Context) -> None:
        await deeper()

    async def deeper() -> None:
        block(clock, logged, 2 * HOGGED)

    return service


async def test_a_handler_that_blocks_the_loop_is_named_with_its_line(
    clock: Clock, logged: list[Any]
) -> None:
    handlers = service_of(clock, logged).handlers.values()
    async with Watchdog(handlers):
        for handler in handlers:
            await handler.function(None)
    assert logged[0]["action"] == "shop.slow"
    first, *_, last = logged[0]["at"].split(" > ")
    assert (first.rsplit()[-1], last.rsplit()[-1]) == ("slow", "block")


async def test_a_handler_that_blocks_again_and_again_is_named_once(
    clock: Clock, logged: list[Any]
) -> None:
    service = Service("shop")

    @service.command("slow")
    async def slow(_ctx: Context) -> None:
        clock.now += 2 * HOGGED
        time.sleep(0.2)  # many looks

    async with Watchdog(service.handlers.values()) as it:
        for _ in range(3):
            await service.handlers["slow"].function(None)
            await until(lambda: it._ticked == clock.now)
    assert [each["event"] for each in logged] == ["event loop blocked", "event loop goes on"]


async def test_a_loop_that_turns_is_not_told(clock: Clock, logged: list[Any]) -> None:
    async with Watchdog() as it:
        for _ in range(6):
            clock.now += BLOCKED / 2
            await until(lambda: it._ticked == clock.now)
    assert logged == []


async def test_when_it_has_ended_nothing_is_told(clock: Clock, logged: list[Any]) -> None:
    before = set(threading.enumerate())
    async with Watchdog():
        (thread,) = set(threading.enumerate()) - before
    clock.now += 2 * BLOCKED
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert logged == []
