"""A full journal: commands wait outside, and what services emit still gets in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from tenantry import errors
from tenantry.bus import Bus, api
from tenantry.journal.health import probe
from tests import services
from tests.mesh import Mesh, Program, eventually

pytestmark = pytest.mark.slow

NOTE = {"text": "x"}


class Full(NamedTuple):
    mesh: Mesh
    control: Bus
    acme: Program

    async def limit(self, max_bytes: int) -> None:
        config = (await api(self.control, "STREAM.INFO.JOURNAL"))["config"]
        await api(self.control, "STREAM.UPDATE.JOURNAL", {**config, "max_bytes": max_bytes})


@pytest.fixture
async def full(own_mesh: Mesh) -> AsyncIterator[Full]:
    """A mesh whose journal has room for its reserve alone."""
    own_mesh.start(own_mesh.worker(services.notes))
    async with await own_mesh.insider("root") as control, own_mesh.program() as acme:
        await own_mesh.ready(acme, "notes.emit")
        for _ in range(10):
            await acme.client.publish("notes.remember", {"text": "x" * 100_000})
        made = Full(own_mesh, control, acme)
        used = (await api(control, "STREAM.INFO.JOURNAL"))["state"]["bytes"]
        await made.limit(int(used / 0.97))
        await eventually(lambda: _is_refused(acme))
        yield made


async def _is_refused(acme: Program) -> bool:
    try:
        await acme.client.publish("notes.remember", NOTE)
    except errors.Unavailable as error:
        return "the journal is full" in str(error)
    return False


async def _is_taken(acme: Program) -> bool:
    return not await _is_refused(acme)


async def test_what_a_service_emits_takes_the_reserve(full: Full) -> None:
    answer: dict[str, Any] = await full.acme.client.request("notes.emit", NOTE | {"count": 1})
    assert answer["count"] == 1


async def test_a_probe_says_that_the_journal_is_full(full: Full) -> None:
    found = await probe(full.control)
    assert (found.stores, found.full, found.good) == (True, True, False)


async def test_with_more_room_commands_are_taken_again(full: Full) -> None:
    await full.limit(-1)
    await eventually(lambda: _is_taken(full.acme))


async def test_a_probe_of_a_journal_with_room_finds_nothing(full: Full) -> None:
    await full.limit(-1)
    found = await probe(full.control)
    assert (found.good, found.why) == (True, "")
