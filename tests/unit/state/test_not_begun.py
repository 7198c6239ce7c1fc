"""What the mesh can't do before a handler runs is none of the message's tries."""

from __future__ import annotations

import pytest

from tenantry import Context
from tenantry.bus import Bus
from tenantry.errors import Rejection, TenantUnknown, Unavailable
from tenantry.runtime.outbox import Outbox
from tenantry.runtime.stored import NotBegun, Permanent
from tests.unit.state.handling import Handling


async def nothing(_ctx: Context) -> None: ...


def stale(monkeypatch: pytest.MonkeyPatch, answer: Rejection) -> None:
    """The context of each message has to be renewed, which is answered so."""

    async def refuses(_outbox: Outbox, _context: Context) -> None:
        raise answer

    monkeypatch.setattr(Outbox, "is_stale", staticmethod(lambda _expires: True))
    monkeypatch.setattr(Outbox, "refresh", refuses)


async def test_while_no_router_renews_its_context_a_message_has_not_begun(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    handling = await Handling.make(bus)
    stale(monkeypatch, Unavailable("nobody serves it"))
    with pytest.raises(NotBegun, match="nobody serves it"):
        await handling.handle(1, nothing)
    assert handling.runs == 0


async def test_what_a_router_refuses_is_given_up(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    handling = await Handling.make(bus)
    stale(monkeypatch, TenantUnknown("deleted"))
    with pytest.raises(Permanent):
        await handling.handle(1, nothing)
    assert handling.runs == 0
