"""How refusals are counted and written down, with a real stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from tenantry.bus import Bus
from tenantry.bus.jetstream import api, ensure_stream
from tenantry.bus.scan import scan
from tenantry.messages import SecurityEvent
from tenantry.runtime import audit
from tenantry.runtime.audit import Audit, shown
from tenantry.streams import AUDIT, AuditLimits, audit_config
from tests.mesh import eventually
from tests.unit.bus.station import fresh

_decode = msgspec.json.Decoder(SecurityEvent).decode


@asynccontextmanager
async def trail(bus: Bus) -> AsyncIterator[tuple[Audit, str]]:
    """An audit of a service of its own, by whose name its events are found."""
    await ensure_stream(bus, audit_config(AuditLimits()))
    name = fresh("service")
    kept = Audit(bus, name, "1")
    await kept.start()
    try:
        yield kept, name
    finally:
        await kept.stop()


async def events(bus: Bus, service: str) -> list[SecurityEvent]:
    found = [_decode(message.data) async for message in scan(bus, AUDIT, "audit.>")]
    return [event for event in found if event.service == service]


async def add_up(bus: Bus, service: str, number: int) -> None:
    """Return when the events of a service stand for so many refusals."""

    async def check() -> bool:
        return sum(event.count for event in await events(bus, service)) == number

    await eventually(check)


async def test_what_comes_together_is_one_event(bus: Bus) -> None:
    async with trail(bus) as (kept, name):
        for _ in range(100):
            kept.refused("forged_header", tenant="acme", subject="edge.acme.a.b")
        await add_up(bus, name, 100)
        (event,) = await events(bus, name)
        assert (event.tenant, event.subject, event.instance) == ("acme", "edge.acme.a.b", "1")
        assert event.first <= event.last


async def test_the_subject_says_whose_and_what(bus: Bus) -> None:
    async with trail(bus) as (kept, name):
        kept.refused("forged_header", tenant="acme")
        kept.refused("no_credentials", host="10.0.0.1")
        await add_up(bus, name, 2)
        found = [message async for message in scan(bus, AUDIT, "audit.>")]
        subjects = {each.subject for each in found if _decode(each.data).service == name}
        assert subjects == {"audit.acme.forged_header", "audit.-.no_credentials"}


async def test_sources_are_told_apart(bus: Bus) -> None:
    async with trail(bus) as (kept, name):
        for tenant in ("acme", "globex", "acme"):
            kept.refused("forged_header", tenant=tenant)
        await add_up(bus, name, 3)
        assert {(e.tenant, e.count) for e in await events(bus, name)} == {
            ("acme", 2),
            ("globex", 1),
        }


async def test_sources_beyond_number_are_one(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST", 2)
    async with trail(bus) as (kept, name):
        for number in range(10):
            kept.refused("no_credentials", host=f"10.0.0.{number}")
        await add_up(bus, name, 10)
        assert {(e.tenant, e.host, e.count) for e in await events(bus, name)} == {
            ("", "10.0.0.0", 1),
            ("", "10.0.0.1", 1),
            ("*", "", 8),
        }


async def test_what_goes_on_is_told_again_after_the_window(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WINDOW", 0.5)
    async with trail(bus) as (kept, name):
        kept.refused("forged_header", tenant="acme")
        await add_up(bus, name, 1)
        kept.refused("forged_header", tenant="acme")
        kept.refused("forged_header", tenant="acme")
        await add_up(bus, name, 3)
        assert [event.count for event in await events(bus, name)] == [1, 2]


async def test_a_source_that_is_quiet_is_forgotten(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WINDOW", 0.1)
    async with trail(bus) as (kept, name):
        kept.refused("forged_header", tenant="acme")
        await add_up(bus, name, 1)

        async def forgotten() -> bool:
            return not kept._sources

        await eventually(forgotten)


async def test_what_was_a_mistake_is_not_told(bus: Bus) -> None:
    async with trail(bus) as (kept, name):
        kept.refused("unknown_tenant", tenant="new", holds=lambda: False)
        kept.refused("unknown_tenant", tenant="ghost", holds=lambda: True)
        await add_up(bus, name, 1)
        assert kept.told == {"unknown_tenant": 1}
        assert [event.tenant for event in await events(bus, name)] == ["ghost"]


async def test_an_end_tells_what_is_left(bus: Bus) -> None:
    async with trail(bus) as (kept, name):
        kept.refused("forged_header", tenant="acme")
    assert len(await events(bus, name)) == 1


async def test_what_was_never_begun_can_be_ended(bus: Bus) -> None:
    await Audit(bus, "orders", "1").stop()


async def test_what_no_stream_takes_is_counted_as_lost(bus: Bus) -> None:
    async with trail(bus) as (kept, name):
        await api(bus, f"STREAM.DELETE.{AUDIT}")
        kept.refused("forged_header", tenant="acme")
        kept.refused("forged_header", tenant="acme")

        async def lost() -> bool:
            return kept.lost == {"forged_header": 2}

        await eventually(lost)
        assert not kept.told
        await ensure_stream(bus, audit_config(AuditLimits()))
        kept.refused("forged_header", tenant="globex")
        await add_up(bus, name, 1)


async def test_a_flood_of_one_kind_pushes_out_only_its_own(bus: Bus) -> None:
    config = audit_config(AuditLimits())
    assert config["max_msgs_per_subject"] * 1024 < config["max_bytes"]
    assert config["discard"] == "old"


@pytest.mark.parametrize(
    ("text", "seen"), [("a.b", "a.b"), ("a\x1b[2J\n", "a?[2J?"), ("ä", "?"), ("x" * 300, "x" * 200)]
)
def test_a_subject_is_made_printable(text: str, seen: str) -> None:
    assert shown(text) == seen
