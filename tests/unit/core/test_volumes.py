"""What the journal holds of a tenant, in bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.messages import Volume
from tenantry.volumes import Piece, counted, gone, room_at, total

NOW = 1_800_000_000.0
FULL = Volume(seq=9, parts={0: 5, int(NOW) + 60: 10, int(NOW) + 120: 20})


@given(age=st.integers(60, 400 * 86_400), at=st.floats(1e9, 4e9))
def test_a_message_counts_as_long_as_it_is_there_and_hardly_longer(age: int, at: float) -> None:
    until = gone(at, f"{age}s")
    assert at + age <= until <= at + age + max(60, age / 32)


@given(age=st.integers(60, 400 * 86_400), ats=st.lists(st.floats(0, 1), min_size=2))
def test_a_row_has_few_parts(age: int, ats: list[float]) -> None:
    assert len({gone(NOW + age * at, f"{age}s") for at in ats}) <= 66


@pytest.mark.parametrize(("life", "most"), [(None, 0.0), ("never", 0.0), ("", 0.0), ("0s", 0.0)])
def test_without_an_end_a_message_stays(life: str | None, most: float) -> None:
    assert gone(NOW, life, most) == 0


@pytest.mark.parametrize("life", [None, "7200s", "7200"])
def test_the_streams_own_age_ends_it_sooner(life: str | None) -> None:
    assert gone(NOW, life, 3600.0) == gone(NOW, "3600s")


def test_what_is_gone_is_not_there() -> None:
    assert total(FULL, NOW) == 35
    assert total(FULL, NOW + 60) == 25
    assert total(FULL, NOW + 120) == 5


def test_a_message_counts_once() -> None:
    pieces = [Piece(9, 0, 100), Piece(10, 0, 7)]
    once = counted(FULL, pieces, 10, NOW)
    assert total(once, NOW) == 42
    assert once.ever == 7
    assert counted(once, pieces, 10, NOW) == once


def test_what_is_gone_leaves_the_row() -> None:
    assert counted(FULL, [Piece(10, int(NOW), 3)], 12, NOW + 60).parts == {
        0: 5,
        int(NOW) + 120: 20,
    }


@pytest.mark.parametrize(
    ("wanted", "at"), [(40, 0.0), (35, 0.0), (34, 60.0), (25, 60.0), (5, 120.0)]
)
def test_there_is_room_when_the_first_are_gone(wanted: int, at: float) -> None:
    assert room_at(FULL, wanted, NOW) == NOW + at


def test_what_stays_makes_no_room() -> None:
    assert room_at(FULL, 4, NOW) is None
