"""The room that a router knows of in the journal."""

from __future__ import annotations

import pytest

from tenantry.bus import Bus
from tenantry.errors import Unavailable
from tenantry.journal.health import room
from tenantry_workers.router.room import JournalRoom


@pytest.fixture
async def known() -> JournalRoom:
    return JournalRoom(Bus(["nats://127.0.0.1:1"]))


def info(limit: int, used: int) -> dict[str, dict[str, int]]:
    return {"config": {"max_bytes": limit}, "state": {"bytes": used}}


def test_a_twentieth_of_the_journal_is_kept() -> None:
    assert room(info(1_000, 900)) == 50


def test_a_journal_without_a_limit_has_room() -> None:
    assert room(info(-1, 10**15)) == float("inf")


async def test_what_is_let_in_counts_at_once(known: JournalRoom) -> None:
    known.left = 150
    known.take(100)
    with pytest.raises(Unavailable, match="the journal is full"):
        known.take(100)


async def test_what_is_refused_takes_no_room(known: JournalRoom) -> None:
    known.left = 50
    with pytest.raises(Unavailable):
        known.take(100)
    known.take(50)
