"""Entering a service into the catalogue beside those that run."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tenantry.bus import Bucket, Bus, Message
from tenantry.bus import jetstream as js
from tenantry.errors import DeclarationError
from tenantry.messages import ActionInfo, Alive, Declaration, Kind
from tenantry.runtime import registry
from tenantry.streams import bucket_config
from tests.unit.bus.station import fresh


@pytest.fixture
async def catalogue(bus: Bus) -> Bucket[Declaration]:
    await js.ensure_stream(bus, bucket_config(registry.BUCKET))
    return Bucket(bus, registry.BUCKET, Declaration)


@pytest.fixture
def service() -> str:
    return fresh("service")


def declare(
    service: str, version: str = "1.0.0", *, digest: str = "d1", **actions: Kind
) -> Declaration:
    return Declaration(
        service=service,
        version=version,
        digest=digest,
        actions=tuple(ActionInfo(name=name, kind=kind) for name, kind in actions.items()),
    )


async def entered(catalogue: Bucket[Declaration], made: Declaration) -> Declaration | None:
    entry = await catalogue.get(registry.key(made.service, made.version))
    return entry.value if entry else None


async def test_a_declaration_is_entered(catalogue: Bucket[Declaration], service: str) -> None:
    made = declare(service, place="request")
    await registry.register(catalogue.bus, made, set())
    assert await entered(catalogue, made) == made


async def test_a_declaration_that_nats_does_not_take_is_named(
    catalogue: Bucket[Declaration], service: str
) -> None:
    large = msgspec.structs.replace(declare(service), description="x" * catalogue.bus.max_body)
    with pytest.raises(DeclarationError, match=f"the declaration of service {service} 1.0.0 has"):
        await registry.register(catalogue.bus, large, set())


async def test_versions_are_entered_apart(catalogue: Bucket[Declaration], service: str) -> None:
    first, second = declare(service, "1.0.0"), declare(service, "1.1.0", digest="d2")
    await registry.register(catalogue.bus, first, set())
    await registry.register(catalogue.bus, second, {"1.0.0"})
    assert await entered(catalogue, first) == first
    assert await entered(catalogue, second) == second


async def test_the_same_again_writes_nothing(catalogue: Bucket[Declaration], service: str) -> None:
    made = declare(service)
    for _ in range(2):
        await registry.register(catalogue.bus, made, {"1.0.0"})
        revision = (await catalogue.status())["last_seq"]
    await registry.register(catalogue.bus, made, {"1.0.0"})
    assert (await catalogue.status())["last_seq"] == revision


async def test_other_words_for_the_same_contract_are_entered(
    catalogue: Bucket[Declaration], service: str
) -> None:
    made = declare(service)
    await registry.register(catalogue.bus, made, set())
    reworded = msgspec.structs.replace(made, description="Orders")
    await registry.register(catalogue.bus, reworded, {"1.0.0"})
    assert await entered(catalogue, made) == reworded


async def test_another_contract_under_a_version_that_runs_is_refused(
    catalogue: Bucket[Declaration], service: str
) -> None:
    made = declare(service, digest="d1")
    await registry.register(catalogue.bus, made, set())
    with pytest.raises(DeclarationError, match="runs already with other actions") as caught:
        await registry.register(catalogue.bus, declare(service, digest="d2"), {"1.0.0"})
    assert "raise the version" in caught.value.hint
    assert await entered(catalogue, made) == made


async def test_another_contract_under_a_version_that_rests_is_entered(
    catalogue: Bucket[Declaration], service: str
) -> None:
    """As one works on it on a laptop."""
    await registry.register(catalogue.bus, declare(service, digest="d1"), set())
    other = declare(service, digest="d2")
    await registry.register(catalogue.bus, other, {"9.9.9"})
    assert await entered(catalogue, other) == other


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("request", "command"), ("command", "request"), ("event", "command"), ("request", "event")],
)
async def test_versions_that_run_agree_on_what_an_action_is(
    catalogue: Bucket[Declaration], service: str, was: Kind, becomes: Kind
) -> None:
    await registry.register(catalogue.bus, declare(service, "1.0.0", place=was), set())
    new = declare(service, "2.0.0", place=becomes, more="request")
    with pytest.raises(DeclarationError, match=rf"place as an? {becomes}, but 1\.0\.0, which runs"):
        await registry.register(catalogue.bus, new, {"1.0.0"})
    assert await entered(catalogue, new) is None


async def test_a_version_that_rests_may_have_called_it_otherwise(
    catalogue: Bucket[Declaration], service: str
) -> None:
    await registry.register(catalogue.bus, declare(service, "1.0.0", place="request"), set())
    new = declare(service, "2.0.0", place="command")
    await registry.register(catalogue.bus, new, {"1.5.0"})
    assert await entered(catalogue, new) == new


async def test_of_many_that_enter_at_once_all_are_content(
    catalogue: Bucket[Declaration], service: str
) -> None:
    made = declare(service)
    await asyncio.gather(*(registry.register(catalogue.bus, made, set()) for _ in range(5)))
    assert await entered(catalogue, made) == made


# who answers


async def answering(bus: Bus, service: str, body: Any) -> None:
    async def answer(message: Message) -> None:
        await bus.answer(message, body if isinstance(body, bytes) else msgspec.json.encode(body))

    await bus.subscribe(f"$SRV.PING.{service}", answer)


async def test_all_that_answer_are_found(bus: Bus, service: str) -> None:
    for instance, version in (("i1", "1.0.0"), ("i2", "2.0.0")):
        pong = {"name": service, "version": version, "id": instance, "type": "x"}
        await answering(bus, service, pong)
    found = await registry.living(bus, service, wait=0.1)
    assert sorted(found, key=lambda life: life.instance) == [
        Alive(service=service, version="1.0.0", instance="i1"),
        Alive(service=service, version="2.0.0", instance="i2"),
    ]


@pytest.mark.parametrize("body", [b"", b"not json", b"\xff", b"[]", b"{}", b'{"x":' + b"[" * 9000])
async def test_what_answers_anything_else_is_passed_over(
    bus: Bus, service: str, body: bytes
) -> None:
    await answering(bus, service, body)
    await answering(bus, service, {"name": service, "version": "1.0.0", "id": "i1"})
    assert len(await registry.living(bus, service, wait=0.1)) == 1


async def test_where_nothing_runs_nothing_is_found(bus: Bus, service: str) -> None:
    assert await registry.living(bus, service, wait=0.05) == []
