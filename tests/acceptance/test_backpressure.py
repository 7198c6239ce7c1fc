"""What a service can't keep up with waits in the journal, not in anyone's memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from tenantry import Client, errors
from tenantry.operator import OperatorHome
from tests.acceptance.fleet import Process, fleet
from tests.mesh import eventually
from tests.servers import NatsServers

COUNT = 20_000
AT_ONCE = 200
MOST = 40.0
"""What a worker may hold more than before, MiB; the commands alone are 20."""

SLUGGARD = '''
import asyncio

from msgspec import Struct

from tenantry import Context, Service

service = Service("sluggard", version="1.0.0")


class Load(Struct):
    text: str


@service.command("take", public=True, timeout=3600.0)
async def take(ctx: Context, load: Load) -> None:
    """Never be done."""
    await asyncio.Event().wait()


@service.request("ask", public=True)
async def ask(ctx: Context) -> str:
    """Answer all the same."""
    return "here"
'''


def memory(process: Process) -> float:
    """What a worker holds, MiB."""
    return psutil.Process(process.pid).memory_info().rss / 2**20


async def send(client: Client) -> None:
    body = {"text": "x" * 1024}
    for _ in range(0, COUNT, AT_ONCE):
        await asyncio.gather(*(client.publish("sluggard.take", body) for _ in range(AT_ONCE)))


@pytest.mark.slow
async def test_a_slow_service_grows_the_journal_and_nobodys_memory(
    nats_backend: NatsServers, tmp_path: Path
) -> None:
    async with fleet(nats_backend(OperatorHome.create), tmp_path) as deployment:
        deployment.write("sluggard", SLUGGARD)
        workers = [*deployment.running]
        workers += [await deployment.start(each) for each in ("router", "sluggard:service")]
        async with await deployment.customer("acme") as acme:

            async def served() -> bool:
                try:
                    return bool(await acme.request("sluggard.ask") == "here")
                except errors.Rejection:  # the router does not know the tenant yet
                    return False

            await eventually(served)
            before = [memory(each) for each in workers]
            await send(acme)
            assert await acme.request("sluggard.ask") == "here"
            grown = [memory(each) - was for each, was in zip(workers, before, strict=True)]
            stopping = workers[-1]
            await stopping.kill()
            assert (await acme.publish("sluggard.take", {"text": "kept"})).seq > COUNT
    assert max(grown) < MOST, dict(zip([each.target for each in workers], grown, strict=True))
