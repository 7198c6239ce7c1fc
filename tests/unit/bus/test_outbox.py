"""The durable outbox of the tenants worker: nothing is passed over, no owner waits for another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.errors import Unavailable
from tenantry_workers.tenants import outbox
from tenantry_workers.tenants.outbox import DurableOutbox, NotYet
from tests.mesh import eventually
from tests.unit.bus.station import fresh


class Box:
    """A stream `<name>.<owner>.<number>` and an outbox that reads it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.name = fresh("box")
        self.passed: list[str] = []
        self.fails: dict[str, list[Exception]] = {}
        """How the next tries of a message fail."""

    async def publish(self, message: Message) -> None:
        text = message.subject.split(".", 1)[1]
        if planned := self.fails.get(text):
            raise planned.pop(0)
        self.passed.append(text)

    async def put(self, *names: str) -> None:
        for name in names:
            await js.store(self.bus, f"{self.name}.{name}", b"")

    async def make(self) -> None:
        config = {"name": self.name, "subjects": [f"{self.name}.>"], "storage": "memory"}
        await js.ensure_stream(self.bus, config)

    def consumer(self, **more: Any) -> dict[str, Any]:
        return {
            "name": "out",
            "durable_name": "out",
            "ack_policy": "explicit",
            "ack_wait": 2_000_000_000,
            **more,
        }

    @asynccontextmanager
    async def ranked(self) -> AsyncIterator[None]:
        """Read with owners, in the order of the numbers."""

        def rank(message: Message) -> tuple[str, tuple[int, ...]]:
            _, owner, number = message.subject.split(".")
            return owner, (int(number),)

        box = DurableOutbox(
            self.bus, self.name, self.consumer(max_ack_pending=-1), self.publish, rank=rank
        )
        async with _running(box):
            yield

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[None]:
        """Read one after another."""
        box = DurableOutbox(self.bus, self.name, self.consumer(max_ack_pending=1), self.publish)
        async with _running(box):
            yield

    async def settled(self) -> bool:
        info = await js.api(self.bus, f"CONSUMER.INFO.{self.name}.out")
        return info["num_pending"] == 0 and info["num_ack_pending"] == 0


@asynccontextmanager
async def _running(box: DurableOutbox) -> AsyncIterator[None]:
    await box.start()
    try:
        yield
    finally:
        await box.stop()


@pytest.fixture
async def box(bus: Bus) -> Box:
    box = Box(bus)
    await box.make()
    return box


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_AGAIN", 0.1)
    monkeypatch.setattr(outbox, "_MEND", 0.1)


async def test_all_is_passed_on_in_order(box: Box) -> None:
    await box.put("a.2", "a.1", "b.1")
    async with box.plain():
        await eventually(box.settled)
    assert box.passed == ["a.2", "a.1", "b.1"]


async def test_what_comes_together_is_put_in_order_for_each_owner(box: Box) -> None:
    await box.put("a.3", "b.2", "a.1", "b.1", "a.2")
    async with box.ranked():
        await eventually(box.settled)
    assert [text for text in box.passed if text[0] == "a"] == ["a.1", "a.2", "a.3"]
    assert [text for text in box.passed if text[0] == "b"] == ["b.1", "b.2"]


@pytest.mark.parametrize(
    "failure",
    [Unavailable("away"), NotYet(0.1), RuntimeError("a bug")],
    ids=lambda f: type(f).__name__,
)
@pytest.mark.parametrize("way", ["plain", "ranked"])
async def test_what_fails_comes_again_before_those_behind_it(
    box: Box, way: str, failure: Exception
) -> None:
    box.fails["a.1"] = [failure, failure]
    await box.put("a.1", "a.2")
    async with getattr(box, way)():
        await eventually(box.settled)
    assert box.passed == ["a.1", "a.2"]


async def test_other_owners_do_not_wait_for_one_that_fails(box: Box) -> None:
    box.fails["a.1"] = [NotYet(0.1)] * 1000
    await box.put("a.1", "b.1")
    async with box.ranked():
        await eventually(lambda: _has(box, "b.1"))
        await box.put("b.2")
        await eventually(lambda: _has(box, "b.2"))
    assert box.passed == ["b.1", "b.2"]


async def test_more_than_there_is_room_for_is_passed_on_once_each(box: Box) -> None:
    names = [f"{owner}.{number}" for number in range(60) for owner in "abc"]
    await box.put(*names)
    async with box.ranked():
        await eventually(box.settled)
    assert sorted(box.passed) == sorted(names)


async def test_what_was_not_acknowledged_comes_to_the_next(box: Box) -> None:
    box.fails["a.1"] = [NotYet(0.1)] * 1000
    await box.put("a.1")
    async with box.ranked():
        await eventually(lambda: _tried(box, "a.1", 1000))
    box.fails.clear()
    async with box.ranked():
        await eventually(box.settled)
    assert box.passed == ["a.1"]


async def test_a_consumer_that_is_gone_is_made_again(box: Box) -> None:
    async with box.plain():
        await js.api(box.bus, f"CONSUMER.DELETE.{box.name}.out")
        await box.put("a.1")
        await eventually(lambda: _has(box, "a.1"))


async def _has(box: Box, text: str) -> bool:
    return text in box.passed


async def _tried(box: Box, text: str, of: int) -> bool:
    return len(box.fails[text]) < of
