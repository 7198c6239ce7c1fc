"""`$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, as every NATS tool asks for them (ADR-32)."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from nats.micro.service import ServiceInfo, ServicePing

from tenantry import errors
from tenantry.bus import Bus
from tests import services
from tests.mesh import Mesh, Program, eventually

VERBS = ["PING", "INFO", "STATS"]


async def ask(bus: Bus, subject: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(answer.data) for answer in await bus.gather(subject)]


async def one(bus: Bus, subject: str) -> dict[str, Any]:
    """The answer, where only one instance can answer."""
    return dict(msgspec.json.decode((await bus.call(subject)).data))


@pytest.mark.parametrize("verb", VERBS)
async def test_every_answer_says_who_it_is_of(control: Bus, verb: str) -> None:
    answer = await one(control, f"$SRV.{verb}.notes")
    assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
    assert (answer["name"], answer["version"]) == ("notes", "1.0.0")
    assert answer["id"]
    assert all(isinstance(value, str) for value in answer["metadata"].values())


@pytest.mark.parametrize("verb", VERBS)
async def test_all_services_answer_when_none_is_named(control: Bus, verb: str) -> None:
    names = {answer["name"] for answer in await ask(control, f"$SRV.{verb}")}
    assert names >= {"notes", "followers", "tenants", "router"}


@pytest.mark.parametrize("verb", VERBS)
async def test_one_instance_answers_under_its_id(control: Bus, verb: str) -> None:
    instance = (await one(control, "$SRV.PING.notes"))["id"]
    assert (await one(control, f"$SRV.{verb}.notes.{instance}"))["id"] == instance


@pytest.mark.parametrize("subject", ["$SRV.PING.nobody", "$SRV.PING.notes.nobody", "$SRV.OTHER"])
async def test_nobody_answers_for_what_is_not_there(control: Bus, subject: str) -> None:
    with pytest.raises(errors.Unavailable):
        await one(control, subject)


async def test_the_info_names_each_action(control: Bus) -> None:
    info = await one(control, "$SRV.INFO.notes")
    endpoints = {endpoint["name"]: endpoint for endpoint in info["endpoints"]}
    assert endpoints["echo"] == {
        "name": "echo",
        "subject": "request.*.notes.echo",
        "queue_group": "notes",
        "metadata": {"kind": "request", "public": "true"},
    }
    assert endpoints["remember"]["metadata"] == {"kind": "command", "public": "true"}
    assert endpoints["private"]["metadata"]["public"] == "false"


async def test_the_info_names_what_a_service_follows(control: Bus) -> None:
    info = await one(control, "$SRV.INFO.followers")
    endpoints = {endpoint["name"]: endpoint for endpoint in info["endpoints"]}
    assert endpoints["on_notes_noted"]["subject"] == "tenant.*.notes.noted"


async def test_the_description_is_told(mesh: Mesh, control: Bus) -> None:
    running = mesh.start(mesh.worker(services.counting("told", description="tells itself")))
    assert (await one(control, "$SRV.INFO.told"))["description"] == "tells itself"
    await running.stop()


async def test_the_stats_count_requests_and_errors(mesh: Mesh, acme: Program, control: Bus) -> None:
    before = await _stats(control, "bad")
    for how in ("fine", "fine", "reject"):
        await acme.ask("notes.bad", {"text": how})
    after = await _stats(control, "bad")
    assert after["num_requests"] - before["num_requests"] == 3
    assert after["num_errors"] - before["num_errors"] == 1
    assert after["last_error"] == "conflict"


async def test_the_stats_count_what_was_stored(acme: Program, control: Bus) -> None:
    before = await _stats(control, "remember")
    await acme.client.publish("notes.remember", {"text": "x"})
    await acme.client.publish("notes.remember", {"text": 1})

    async def counted() -> bool:
        after = await _stats(control, "remember")
        return bool(
            after["num_requests"] - before["num_requests"] == 2
            and after["num_errors"] - before["num_errors"] == 1
        )

    await eventually(counted)


async def test_times_are_nanoseconds_and_add_up(acme: Program, control: Bus) -> None:
    await acme.ask("notes.echo", {"text": "x"})
    stats = await _stats(control, "echo")
    average = stats["processing_time"] // stats["num_requests"]
    assert stats["average_processing_time"] == average
    assert average > 1000


async def test_the_start_is_a_time_in_the_past_in_utc(control: Bus) -> None:
    started = (await one(control, "$SRV.STATS.notes"))["started"]
    # What nats-py's own ServiceStats reads; it takes no offset but `Z`.
    at = dt.datetime.strptime(started, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.UTC)
    assert at < dt.datetime.now(dt.UTC)


async def test_nats_pys_own_types_read_the_answers(control: Bus) -> None:
    assert ServicePing.from_dict(await one(control, "$SRV.PING.notes")).name == "notes"
    assert ServiceInfo.from_dict(await one(control, "$SRV.INFO.notes")).endpoints


async def test_a_service_that_has_stopped_answers_no_more(mesh: Mesh, control: Bus) -> None:
    running = mesh.start(mesh.worker(services.counting("departing")))
    assert (await one(control, "$SRV.PING.departing"))["name"] == "departing"
    await running.stop()
    with pytest.raises(errors.Unavailable):
        await one(control, "$SRV.PING.departing")


async def _stats(bus: Bus, action: str) -> dict[str, Any]:
    answer = await one(bus, "$SRV.STATS.notes")
    return next(dict(one) for one in answer["endpoints"] if one["name"] == action)
