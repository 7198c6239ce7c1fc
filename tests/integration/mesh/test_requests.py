"""A tenant's request, from a plain NATS client to a service and back."""

from __future__ import annotations

import json

import pytest

from tenantry import errors
from tests.mesh import Mesh
from tests.services import Note


async def test_a_plain_client_gets_the_answer(mesh: Mesh) -> None:
    creds = await mesh.tenant()
    client = await mesh.plain(creds)
    answer = await client.request(f"tenant.{creds.stem}.notes.echo", b'{"text": "hi"}')
    await client.close()
    assert json.loads(answer.data) == {"text": "hi", "count": 0}


async def test_the_path_of_a_wrong_type_is_told(mesh: Mesh) -> None:
    async with await mesh.client(await mesh.tenant()) as client:
        with pytest.raises(errors.BadMessage) as caught:
            await client.request("notes.echo", {"text": 1})
    assert caught.value.path == "$.text"


async def test_an_answer_is_decoded(mesh: Mesh) -> None:
    async with await mesh.client(await mesh.tenant()) as client:
        assert await client.request("notes.echo", Note("hi", 2), type=Note) == Note("hi", 2)
