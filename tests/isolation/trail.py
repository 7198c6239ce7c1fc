"""The audit trail, as the tests look into it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from tenantry.bus import Bus
from tenantry.bus.scan import scan
from tenantry.messages import SecurityEvent
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair
from tenantry.streams import AUDIT
from tenantry.wire import headers
from tests.mesh import Mesh, Program, eventually

SECRET = "canary-4c1d9e0b7a"


async def written(control: Bus) -> list[SecurityEvent]:
    """All of the stream."""
    decode = msgspec.json.Decoder(SecurityEvent).decode
    return [decode(message.data) async for message in scan(control, AUDIT, "audit.>")]


async def told(control: Bus, kind: str, **fields: Any) -> list[SecurityEvent]:
    """The events of a kind with these fields."""
    return [
        event
        for event in await written(control)
        if event.kind == kind and all(getattr(event, name) == fields[name] for name in fields)
    ]


async def comes(control: Bus, kind: str, **fields: Any) -> SecurityEvent:
    """The first such event, once it is there."""

    async def there() -> bool:
        return bool(await told(control, kind, **fields))

    await eventually(there)
    return (await told(control, kind, **fields))[0]


async def nothing(control: Bus, program: Program) -> bool:
    """Whether nothing is told of a tenant, after something else that it did has been told."""
    await program.ask("notes.echo", {"text": "x"}, headers={"Tenant-Context": "x"})
    await comes(control, "forged_header", tenant=program.id)
    events = [each for each in await written(control) if program.id in (each.tenant, each.victim)]
    return [(each.kind, each.count) for each in events] == [("forged_header", 1)]


async def ask_inside(insider: Bus, subject: str, token: str | None) -> str:
    fields = {} if token is None else {headers.CONTEXT: token}
    answer = await insider.call(subject, b'{"text": "x"}', headers=fields)
    return (answer.headers or {}).get("Nats-Service-Error", "")


async def is_refused(mesh: Mesh, creds: Path | None, **options: Any) -> None:
    if creds is not None:
        options["user_credentials"] = str(creds)
    client = NatsClient()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await client.connect(mesh.url, allow_reconnect=False, **options)
    await client.close()
    if client._transport is not None:  # nats-py leaves it open
        client._transport.close()
    await asyncio.sleep(0)


def saved(mesh: Mesh, name: str, jwt: str, key: KeyPair) -> Path:
    path = mesh.folder / f"{name}.creds"
    path.write_text(creds_files.render(jwt, key))
    return path
