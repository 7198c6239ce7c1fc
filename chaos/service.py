"""The services under chaos, written as an author would: with tenantry's public names only."""

from __future__ import annotations

import asyncio
import os

from chaos.book import Book, Done, Row, Task
from tenantry import Context, Retry, Service
from tenantry.errors import BadMessage

_RETRY = Retry(tries=8, first=0.2, most=2.0)

chaos = Service("chaos", version="1.0.0", retry=_RETRY)
echo = Service("echo", version="1.0.0", retry=_RETRY)
done = chaos.event("done", Done)


@chaos.command("do", public=True)
async def do(ctx: Context, task: Task) -> None:
    """Have one effect, once, after whatever trouble the task asks for."""
    await _trouble(ctx, task)
    await _write(ctx, "do", task)
    left = Done(tenant=task.tenant, producer=task.producer, sequence=task.sequence)
    ctx.emit(done, left)
    if task.kind == "later":
        ctx.send("chaos.late", left, after=task.seconds)


@chaos.command("late")
async def late(ctx: Context, task: Done) -> None:
    """What comes some time after a task."""
    await _write(ctx, "late", task)


@chaos.command("loose", public=True, ordered=False)
async def loose(ctx: Context, task: Task) -> None:
    """The same as `do`, beside all others of its tenant: each effect has a place of its own."""
    await _trouble(ctx, task)
    await ctx.state.put(f"loose.{task.producer}.{task.sequence}", _row(ctx, task))


@echo.on(done, replayable=True)
async def follow(ctx: Context, event: Done) -> None:
    """The second hop: write down the event."""
    await _write(ctx, "done", event)


@echo.reset
async def forget(ctx: Context) -> None:
    """A replay from the start writes the tenant's book anew."""
    await ctx.state.clear()


async def _trouble(ctx: Context, task: Task) -> None:
    if task.kind == "reject":
        raise BadMessage("rejected on purpose")
    if task.kind == "poison" or ctx.attempt <= task.fails:
        raise RuntimeError("failed on purpose")
    if task.kind == "slow":
        await asyncio.sleep(task.seconds)


async def _write(ctx: Context, line: str, cause: Task | Done) -> None:
    """Add a row to the tenant's book, unless the message did so before."""
    name = f"{line}.book"
    found = await ctx.state.get(name, Book)
    book = found.value if found else Book()
    if book.has(ctx.message_id):
        return
    if book.full:
        page, rows, book = book.put_away()
        await ctx.state.put(f"{line}.{page}", rows)
    book = book.add(_row(ctx, cause))
    if found:
        await ctx.state.update(name, book, found.revision)
    else:
        await ctx.state.create(name, book)


def _row(ctx: Context, cause: Task | Done) -> Row:
    return Row(cause.tenant, cause.producer, cause.sequence, ctx.message_id, os.getpid())
