"""The services under chaos, written as an author would: with tenantry's public names only."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec

from chaos.book import BEGINNINGS, TRIES, Beginning, Book, Count, Done, Row, Task
from tenantry import Context, Retry, Service
from tenantry.errors import BadMessage

_RETRY = Retry(tries=TRIES, first=0.1, most=0.5)

chaos = Service("chaos", version="1.0.0", retry=_RETRY)
echo = Service("echo", version="1.0.0", retry=_RETRY)
done = chaos.event("done", Done)
bared = chaos.event("bared", Done)


@chaos.command("do", public=True)
async def do(ctx: Context, task: Task) -> None:
    """Have one effect, once, after whatever trouble the task asks for."""
    await _trouble(ctx, task)
    await _write(ctx, "do", task)
    left = _left(task)
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


@chaos.command("bare", public=True)
async def bare(ctx: Context, task: Task) -> None:
    """Leave an event and no state: nothing but its id keeps a second one out."""
    await _trouble(ctx, task)
    ctx.emit(bared, _left(task))


@echo.on(done, replayable=True)
async def follow(ctx: Context, event: Done) -> None:
    """The second hop: write down the event."""
    await _write(ctx, "done", event)


@echo.reset
async def forget(ctx: Context) -> None:
    """A replay from the start writes the tenant's book anew."""
    await ctx.state.clear()


async def _trouble(ctx: Context, task: Task) -> None:
    if task.kind == "killer":
        _die(task)
    if task.kind == "reject":
        raise BadMessage("rejected on purpose")
    if task.kind == "poison" or ctx.attempt <= task.fails:
        raise RuntimeError("failed on purpose")
    if task.kind == "slow":
        await asyncio.sleep(task.seconds)


def _die(task: Task) -> None:
    """Write down that it begins, and end this process as a crash would."""
    beginning = Beginning(
        at=time.time(),
        pid=os.getpid(),
        tenant=task.tenant,
        producer=task.producer,
        sequence=task.sequence,
    )
    with Path(BEGINNINGS).open("ab") as file:
        file.write(msgspec.json.encode(beginning) + b"\n")
    os.kill(os.getpid(), signal.SIGKILL)


async def _write(ctx: Context, line: str, cause: Task | Done) -> None:
    """Add a row to the tenant's book and count it, whatever is there: each message does so once."""
    counted = await ctx.state.get(f"{line}.count", Count)
    await ctx.state.put(f"{line}.count", Count(counted.value.n + 1 if counted else 1))
    name = f"{line}.book"
    found = await ctx.state.get(name, Book)
    book = found.value if found else Book()
    if book.full:
        page, rows, book = book.put_away()
        await ctx.state.put(f"{line}.{page}", rows)
    book = book.add(_row(ctx, cause))
    if found:
        await ctx.state.update(name, book, found.revision)
    else:
        await ctx.state.create(name, book)


def _left(task: Task) -> Done:
    return Done(tenant=task.tenant, producer=task.producer, sequence=task.sequence)


def _row(ctx: Context, cause: Task | Done) -> Row:
    return Row(cause.tenant, cause.producer, cause.sequence, ctx.message_id, os.getpid())
