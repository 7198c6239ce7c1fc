"""FastStream on NATS: requests with and without tenant checks, and a JetStream subscriber.

python -m benchmarks.peers.fast plain|depends|checked URL
python -m benchmarks.peers.fast pull|batches URL STREAM DURABLE

Its own msgspec serializer, no log of each message, handlers one after another: with nothing to
wait for, `max_workers` makes it slower. The checks are written in both ways that there are: as a
dependency, the shorter one, for which FastStream goes through a thread for each `Path` and
`Header`, and as a middleware, which it calls directly.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import uvloop
from fast_depends.msgspec import MsgSpecSerializer
from faststream import BaseMiddleware, Depends
from faststream.message import StreamMessage
from faststream.nats import JStream, NatsBroker, NatsRouter, PullSub
from faststream.params import Header, Path
from nats.js.api import ConsumerConfig

from benchmarks.echo import Echo
from benchmarks.peers import checks
from benchmarks.peers.meter import Meter

BATCH = 500
AT_ONCE = 100
"""Of single messages: all of a fetch are tasks at once, and more of them cost more each."""
meter = Meter()

plain, depends = NatsRouter(), NatsRouter()


@plain.subscriber("fast.{tenant}.bench.echo", queue="bench")
async def echo(message: Echo) -> Echo:
    """Answer with the same."""
    return message


async def tenant_of(
    tenant: Annotated[str, Path()], token: Annotated[str, Header(checks.HEADER)]
) -> str:
    """The tenant that the message is of, verified and within its rate."""
    checks.authenticate(tenant, token)
    checks.admit(tenant)
    return tenant


@depends.subscriber("depends.{tenant}.bench.echo", queue="bench")
async def echo_by_depends(message: Echo, _tenant: Annotated[str, Depends(tenant_of)]) -> Echo:
    """Answer a tenant with the same."""
    return message


class TenantChecks(BaseMiddleware):
    """The same before any handler of a router."""

    async def consume_scope(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        """Raise what is wrong, else go on."""
        tenant = msg.path["tenant"]
        checks.authenticate(tenant, msg.headers.get(checks.HEADER, ""))
        checks.admit(tenant)
        return await call_next(msg)


checked = NatsRouter(middlewares=[TenantChecks])


@checked.subscriber("checked.{tenant}.bench.echo", queue="bench")
async def checked_echo(message: Echo) -> Echo:
    """Answer a tenant with the same."""
    return message


def pulling(stream: str, durable: str) -> NatsRouter:
    """A handler of each message; all of one fetch run at once."""
    router = NatsRouter()

    @router.subscriber(
        f"{stream}.*.drain.take",
        stream=JStream(stream, declare=False),
        durable=durable,
        config=ConsumerConfig(max_ack_pending=4 * AT_ONCE),
        pull_sub=PullSub(batch_size=AT_ONCE),
    )
    async def take(message: Echo) -> None:
        meter.take(message)

    return router


def batches(stream: str, durable: str) -> NatsRouter:
    """A handler of whole batches: quicker, but a batch is handled, or comes again, as one."""
    router = NatsRouter()

    @router.subscriber(
        f"{stream}.*.drain.take",
        stream=JStream(stream, declare=False),
        durable=durable,
        config=ConsumerConfig(max_ack_pending=4 * BATCH),
        pull_sub=PullSub(batch_size=BATCH, batch=True, timeout=0.1),
    )
    async def take(messages: list[Echo]) -> None:
        for message in messages:
            meter.take(message)

    return router


async def main(role: str, url: str, *arguments: str) -> None:
    """Serve until the process is ended."""
    broker = NatsBroker(
        url, logger=None, serializer=MsgSpecSerializer(use_fastdepends_errors=False)
    )
    if role in {"pull", "batches"}:
        broker.include_router({"pull": pulling, "batches": batches}[role](*arguments))
    else:
        broker.include_router({"plain": plain, "depends": depends, "checked": checked}[role])
    async with broker:
        await broker.start()
        await broker.ping(timeout=5)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
