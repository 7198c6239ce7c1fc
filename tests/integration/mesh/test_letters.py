"""Dead letters are listed, shown and dropped."""

from __future__ import annotations

import pytest

from tenantry.bus import Bus, store
from tenantry.errors import BadSubject, NotFound
from tenantry.letters import Letters, Selection
from tests.letters import died, lay, sent
from tests.mesh import Program


async def numbers(control: Bus, **which: object) -> list[int]:
    found = Letters(control).select(Selection(**which))  # type: ignore[arg-type]
    return [letter.number async for letter in found]


async def test_a_letter_is_the_message_and_why_it_died(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "poor")
    number = await lay(control, acme.id, entry)
    letter = await Letters(control).get(number)
    entry.headers.pop("stored")
    assert (letter.number, letter.tenant) == (number, acme.id)
    assert (letter.body, letter.headers) == (entry.data, entry.headers)
    assert (letter.about.action, letter.about.seq) == ("notes.remember", entry.seq)
    assert (letter.about.reason, letter.about.attempts) == ("handler_failed", 3)


async def test_letters_come_in_the_order_of_their_deaths(control: Bus, acme: Program) -> None:
    laid = [await died(control, acme, text) for text in ("one", "two", "three")]
    assert await numbers(control, tenant=acme.id) == laid


async def test_a_tenant_has_its_own_letters_only(
    control: Bus, acme: Program, globex: Program
) -> None:
    mine, other = await died(control, acme, "mine"), await died(control, globex, "other")
    assert await numbers(control, tenant=acme.id) == [mine]
    assert await numbers(control, tenant=globex.id) == [other]


@pytest.mark.parametrize(
    ("which", "taken"),
    [
        ({"service": "notes"}, [0, 1]),
        ({"service": "followers"}, [2]),
        ({"action": "notes.remember"}, [0, 1, 2]),
        ({"action": "notes.stumble"}, []),
        ({"reason": "bad_message"}, [1]),
        ({"since": 2_000.0}, [1, 2]),
        ({"until": 2_000.0}, [0]),
        ({"since": 2_000.0, "until": 3_000.0}, [1]),
        ({"service": "notes", "reason": "handler_failed"}, [0]),
    ],
)
async def test_only_letters_that_are_meant(
    control: Bus, acme: Program, which: dict[str, object], taken: list[int]
) -> None:
    laid = [
        await died(control, acme, "one", at=1_000.0),
        await died(control, acme, "two", at=2_000.0, reason="bad_message"),
        await died(control, acme, "three", at=3_000.0, service="followers"),
    ]
    assert await numbers(control, tenant=acme.id, **which) == [laid[each] for each in taken]


@pytest.mark.parametrize("which", [{"tenant": "a.b"}, {"service": "*"}, {"action": "place"}])
async def test_names_that_can_not_be_are_refused(control: Bus, which: dict[str, str]) -> None:
    with pytest.raises(BadSubject):
        await numbers(control, **which)


@pytest.mark.parametrize("number", [0, -1, 10**9])
async def test_there_is_no_such_letter(control: Bus, number: int) -> None:
    with pytest.raises(NotFound, match="tenantry dead list"):
        await Letters(control).get(number)


async def test_a_dropped_letter_is_gone_and_the_others_stay(control: Bus, acme: Program) -> None:
    laid = [await died(control, acme, text) for text in ("one", "two")]
    assert await Letters(control).drop(laid[0])
    assert await numbers(control, tenant=acme.id) == laid[1:]


async def test_what_is_gone_can_not_be_dropped_again(control: Bus, acme: Program) -> None:
    number = await died(control, acme, "one")
    letters = Letters(control)
    assert [await letters.drop(number), await letters.drop(number)] == [True, False]
    assert not await letters.drop(10**9)


@pytest.mark.parametrize(
    "headers", [{}, {"Tenant-Dead-Reason": "x"}, {"Tenant-Dead-Attempts": "many"}]
)
async def test_what_is_no_letter_is_shown_as_that(
    control: Bus, acme: Program, headers: dict[str, str]
) -> None:
    number = (await store(control, f"dead.{acme.id}.notes.1", b"?", headers=headers)).seq
    good = await died(control, acme, "good")
    found = [letter async for letter in Letters(control).select(Selection(tenant=acme.id))]
    assert [letter.number for letter in found] == [number, good]
    assert [letter.about.reason for letter in found] == ["unreadable", "handler_failed"]
    assert (found[0].about.service, found[0].about.seq, found[0].body) == ("notes", 1, b"?")


async def test_headers_of_another_letter_make_none(control: Bus, acme: Program) -> None:
    letter = await Letters(control).get(await died(control, acme, "good"))
    number = (await store(control, f"dead.{acme.id}.notes.x", b"?")).seq
    assert letter.about.reason == "handler_failed"
    assert (await Letters(control).get(number)).about.reason == "unreadable"
