"""The server's word on a lost connection, as a client of the mesh gets it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from nats.aio.subscription import Subscription

from tenantry.operator import roles
from tests.integration.operator.clients import PATIENCE, SILENCE, Client, Mesh


async def event_of(events: Subscription, client: Client) -> dict[str, Any]:
    """The event about this client; those of clients of other tests may come before."""
    while True:
        event = json.loads((await events.next_msg(PATIENCE)).data)
        if event["client"]["user"] == client.public_key:
            return event


async def test_a_lost_client_of_the_mesh_is_told(mesh: Mesh) -> None:
    events = await (await mesh.role("router")).subscribe(roles.DISCONNECTS)
    service = await mesh.role("service")
    service.nats._transport.close()
    event = await event_of(events, service)
    assert event["type"] == "io.nats.server.advisory.v1.client_disconnect"


async def test_the_event_names_the_client(mesh: Mesh) -> None:
    events = await (await mesh.role("router")).subscribe(roles.DISCONNECTS)
    service = await mesh.role("service")
    await service.nats.close()
    event = await event_of(events, service)
    assert event["client"]["name"] == service.nats.options["name"]


@pytest.mark.parametrize("role", ["service", "control"])
async def test_no_other_role_hears_of_it(mesh: Mesh, role: str) -> None:
    assert not await (await mesh.role(role)).may_subscribe(roles.DISCONNECTS)


async def test_the_loss_of_a_tenants_client_is_not_the_meshs(mesh: Mesh) -> None:
    events = await (await mesh.role("router")).subscribe(roles.DISCONNECTS)
    acme = await mesh.tenant("acme")
    await acme.nats.close()
    await asyncio.sleep(SILENCE)
    told = [json.loads((await events.next_msg()).data) for _ in range(events.pending_msgs)]
    assert acme.public_key not in {event["client"]["user"] for event in told}
