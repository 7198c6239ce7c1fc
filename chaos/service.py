"""The services under chaos, written as an author would: with tenantry's public names only."""

from __future__ import annotations

import asyncio
import os

from chaos.book import BOOK, Book, Done, Row, Task
from tenantry import Context, Retry, Service
from tenantry.errors import BadMessage

_RETRY = Retry(tries=8, first=0.2, most=2.0)

chaos = Service("chaos", version="1.0.0", retry=_RETRY)
echo = Service("echo", version="1.0.0", retry=_RETRY)
done = chaos.event("done", Done)


@chaos.command("do", public=True)
async def do(ctx: Context, task: Task) -> None:
    """Have one effect, once, after whatever trouble the task asks for."""
    if task.kind == "reject":
        raise BadMessage("rejected on purpose")
    if task.kind == "poison" or ctx.attempt <= task.fails:
        raise RuntimeError("failed on purpose")
    if task.seconds:
        await asyncio.sleep(task.seconds)
    await _write(ctx, task)
    ctx.emit(done, Done(tenant=task.tenant, producer=task.producer, sequence=task.sequence))


@echo.on(done)
async def follow(ctx: Context, event: Done) -> None:
    """The second hop: write down the event."""
    await _write(ctx, event)


async def _write(ctx: Context, cause: Task | Done) -> None:
    """Add a row to the tenant's book, unless the message did so before."""
    found = await ctx.state.get(BOOK, Book)
    book = found.value if found else Book()
    if book.has(ctx.message_id):
        return
    if book.full:
        name, rows, book = book.put_away()
        await ctx.state.put(name, rows)
    book = book.add(Row(cause.tenant, cause.producer, cause.sequence, ctx.message_id, os.getpid()))
    if found:
        await ctx.state.update(BOOK, book, found.revision)
    else:
        await ctx.state.create(BOOK, book)
