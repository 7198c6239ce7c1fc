"""Services that tests run: well-behaved ones and all kinds of bad ones."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from msgspec import Meta, Struct

from tenantry import Context, Service, current, errors


class Note(Struct, frozen=True):
    """Something to remember."""

    text: str
    count: Annotated[int, Meta(ge=0)] = 0


class Noted(Struct, frozen=True):
    """It was remembered."""

    text: str
    attempt: int = 1


class Seen(Struct, frozen=True):
    """What a handler saw of its context."""

    tenant: str
    plan: str
    principal: str
    request_id: str
    remaining: float
    headers: dict[str, str]


class Texts(Struct, frozen=True):
    """What was remembered, in order."""

    texts: tuple[str, ...] = ()


notes = Service("notes", version="1.0.0", concurrency=32)
noted = notes.event("noted", Noted)


@notes.request("echo", public=True, timeout=5.0)
async def echo(_ctx: Context, note: Note) -> Note:
    """Answer with the same."""
    return note


@notes.request("seen", public=True, timeout=5.0)
async def seen(ctx: Context) -> Seen:
    """Tell what the context says."""
    assert current() is ctx
    return Seen(
        ctx.tenant, ctx.plan, ctx.principal, ctx.request_id, ctx.remaining or 0.0, dict(ctx.headers)
    )


@notes.request("emit", public=True, timeout=5.0)
async def emit(ctx: Context, note: Note) -> Note:
    """Emit as many `noted` as asked for."""
    for index in range(note.count):
        ctx.emit(noted, Noted(f"{note.text}{index}"))
    return note


@notes.request("emit_then_fail", public=True, timeout=5.0)
async def emit_then_fail(ctx: Context, note: Note) -> Note:
    """Emit, then fail: nothing may be published."""
    ctx.emit(noted, Noted(note.text))
    raise RuntimeError("secret-inside")


@notes.request("private", timeout=5.0)
async def private(ctx: Context, note: Note) -> Note:
    """Only for services of the mesh."""
    return Note(f"{ctx.tenant}:{note.text}")


@notes.request("relay", public=True, timeout=5.0)
async def relay(ctx: Context, note: Note) -> Note:
    """Ask another action of the mesh in the tenant's name."""
    return await ctx.request("notes.private", note, type=Note)


@notes.request("bad", public=True, timeout=0.5)
async def bad(ctx: Context, note: Note) -> Note:
    """Fail in the way that is asked for."""
    match note.text:
        case "raise":
            raise RuntimeError("secret-inside")
        case "reject":
            raise errors.Conflict("as asked", hint="do not ask", field="text")
        case "hang":
            await asyncio.sleep(3600)
        case "cancel":
            raise asyncio.CancelledError
        case "type":
            return "not a note"  # type: ignore[return-value]
        case "unencodable":
            return Note(object())  # type: ignore[arg-type]
        case "timeout":
            raise TimeoutError
    return note


@notes.command("remember", public=True)
async def remember(ctx: Context, note: Note) -> None:
    """Append to what is remembered, in order."""
    entry = await ctx.state.get("texts", Texts)
    texts = Texts((*(entry.value.texts if entry else ()), note.text))
    if entry is None:
        await ctx.state.create("texts", texts)
    else:
        await ctx.state.update("texts", texts, entry.revision)


failures: dict[str, int] = {}
"""How often `stumble` still fails, by tenant."""


@notes.command("stumble", public=True, timeout=1.0)
async def stumble(ctx: Context, note: Note) -> None:
    """Fail as often as `failures` says, after emitting, then remember."""
    ctx.emit(noted, Noted(note.text, ctx.attempt))
    if failures.get(ctx.tenant, 0) > 0:
        failures[ctx.tenant] -= 1
        raise RuntimeError("stumbled")
    await remember(ctx, note)


@notes.request("texts", public=True)
async def texts(ctx: Context) -> Texts:
    """What was remembered."""
    entry = await ctx.state.get("texts", Texts)
    return entry.value if entry else Texts()


followers = Service("followers", version="1.0.0")


@followers.on("notes.noted")
async def follow(ctx: Context, event: Noted) -> None:
    """Remember every event."""
    entry = await ctx.state.get("texts", Texts)
    texts = Texts((*(entry.value.texts if entry else ()), event.text))
    if entry is None:
        await ctx.state.create("texts", texts)
    else:
        await ctx.state.update("texts", texts, entry.revision)


@followers.request("texts", public=True)
async def followed(ctx: Context) -> Texts:
    """What was followed."""
    entry = await ctx.state.get("texts", Texts)
    return entry.value if entry else Texts()


def counting(name: str, version: str = "1.0.0", **options: Any) -> Service:
    """A fresh small service, for tests that start and stop their own."""
    service = Service(name, version=version, **options)

    @service.request("who", public=True, timeout=5.0)
    async def who(_ctx: Context) -> Note:
        """Tell which version answers."""
        return Note(version)

    return service
