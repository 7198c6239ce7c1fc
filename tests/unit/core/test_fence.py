"""A fence: whether what a handler does may still count."""

from __future__ import annotations

import asyncio

import pytest

from tenantry.context.fence import EPOCH, Fence, fence_of, free
from tenantry.errors import LaneLost
from tests.unit.core.fences import fence


def test_a_later_sequence_is_higher() -> None:
    assert fence_of(0, 6) > fence_of(0, 5)


def test_a_later_epoch_is_higher_than_any_sequence() -> None:
    assert fence_of(1, 0) > fence_of(0, EPOCH - 1)


def test_its_value_is_of_epoch_and_sequence() -> None:
    assert fence(5, epoch=2).value == fence_of(2, 5)


def test_without_an_order_it_has_no_value() -> None:
    assert fence(5, ordered=False).value is None


def test_a_stored_message_stages_its_state() -> None:
    assert fence(5).is_staged


def test_a_request_stages_nothing() -> None:
    assert not free().is_staged


async def test_what_is_not_lost_is_ours() -> None:
    mine = fence(5)
    mine.check()
    await mine.ours()
    assert not mine.lost


async def test_what_is_lost_is_refused() -> None:
    gone = fence(5, lost=lambda: True)
    assert gone.lost
    with pytest.raises(LaneLost):
        gone.check()
    with pytest.raises(LaneLost):
        await gone.ours()


async def test_what_has_ended_is_refused() -> None:
    ended = fence(5)
    ended.end()
    assert ended.lost
    with pytest.raises(LaneLost):
        ended.check()


async def test_a_doubt_is_waited_for() -> None:
    sure = asyncio.Event()

    async def ours() -> bool:
        return await sure.wait()

    waiting = asyncio.create_task(Fence(lambda: False, ours, seq=5).ours())
    await asyncio.sleep(0)
    assert not waiting.done()
    sure.set()
    await waiting


async def test_what_ends_in_doubt_is_refused() -> None:
    sure = asyncio.Event()

    async def ours() -> bool:
        return await sure.wait()

    doubtful = Fence(lambda: False, ours, seq=5)
    waiting = asyncio.create_task(doubtful.ours())
    await asyncio.sleep(0)
    doubtful.end()
    sure.set()
    with pytest.raises(LaneLost):
        await waiting


async def test_what_is_lost_in_doubt_is_refused() -> None:
    async def ours() -> bool:
        return False

    with pytest.raises(LaneLost):
        await Fence(lambda: False, ours, seq=5).ours()


async def test_a_request_is_always_ours() -> None:
    await free().ours()
    assert not free().lost


def test_a_request_keeps_to_its_namespace() -> None:
    assert free(3).generation == 3
