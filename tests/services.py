"""Services that tests run: well-behaved ones and all kinds of bad ones."""

from __future__ import annotations

import asyncio
import sys
import time
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


NAMES = ("notes", "followers", "planner")
"""What the credentials of an insider are for: services that many tests share."""

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


@notes.request("emit_then_unencodable", public=True, timeout=5.0)
async def emit_then_unencodable(ctx: Context, note: Note) -> Note:
    """Emit, then answer what can't be sent: nothing may be published."""
    ctx.emit(noted, Noted(note.text))
    return Note(object())  # type: ignore[arg-type]


@notes.request("private", timeout=5.0)
async def private(ctx: Context, note: Note) -> Note:
    """Only for services of the mesh."""
    return Note(f"{ctx.tenant}:{note.text}")


@notes.request("relay", public=True, timeout=5.0)
async def relay(ctx: Context, note: Note) -> Note:
    """Ask another action of the mesh in the tenant's name."""
    return await ctx.request("notes.private", note, type=Note)


class Mingled(Struct, frozen=True):
    """Whose a handler thought it was, in all the ways there are to think so."""

    contexts: tuple[str, ...]
    kept: str
    asked: str


@notes.request("mingle", public=True)
async def mingle(ctx: Context, note: Note) -> Mingled:
    """Do all that could be mixed up with another tenant's."""
    name = f"mingled.{note.count}"
    await ctx.state.put(name, note)
    in_thread = await asyncio.to_thread(lambda: current().tenant)
    in_task = await asyncio.create_task(_tenant_after_a_while())
    asked = await ctx.request("followers.whose", note, type=Note)
    kept = await ctx.state.get(name, Note)
    assert kept is not None
    return Mingled((ctx.tenant, current().tenant, in_thread, in_task), kept.value.text, asked.text)


async def _tenant_after_a_while() -> str:
    await asyncio.sleep(0.001)
    return current().tenant


async def fail(how: str) -> None:
    """Fail in the way that is asked for; other ways are no failure."""
    match how:
        case "raise":
            raise RuntimeError("secret-inside")
        case "chained":
            raise KeyError("secret-inside") from ValueError("secret-inside")
        case "timeout":
            raise TimeoutError
        case "cancel":
            raise asyncio.CancelledError
        case "exit":
            sys.exit("secret-inside")
        case "hang":
            await asyncio.sleep(3600)
        case "reject":
            raise errors.Conflict("as asked", hint="do not ask", field="text")
        case "reject_unencodable":
            raise errors.Conflict("as asked", member=object())
        case "reject_none":
            raise errors.Conflict(None)  # type: ignore[arg-type]
        case "reject_long":
            raise errors.Conflict("as asked " + "\0" * 2**20, hint="\0" * 2**20, field="text")
        case "reject_large":
            raise errors.Conflict("as asked", large="x" * 2**20, field="text", **{"y" * 2**20: 1})
        case "reject_lines":
            raise errors.Conflict("one\r\ntwo: three")


@notes.request("bad", public=True, timeout=0.2)
async def bad(ctx: Context, note: Note) -> Note:
    """Fail in the way that is asked for."""
    await fail(note.text)
    match note.text:
        case "type":
            return "not a note"  # type: ignore[return-value]
        case "unencodable":
            return Note(object())  # type: ignore[arg-type]
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


failures: dict[str, list[str]] = {}
"""How the next runs of `stumble` fail, by tenant."""


@notes.command("stumble", public=True, timeout=0.2)
async def stumble(ctx: Context, note: Note) -> None:
    """Emit, fail where `failures` says so, else remember."""
    ctx.emit(noted, Noted(note.text, ctx.attempt))
    if planned := failures.get(ctx.tenant):
        await fail(planned.pop(0))
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


@followers.request("whose")
async def whose(ctx: Context, note: Note) -> Note:
    """Whose this is, and what it says."""
    return Note(f"{ctx.tenant}:{note.text}")


@followers.request("texts", public=True)
async def followed(ctx: Context) -> Texts:
    """What was followed."""
    entry = await ctx.state.get("texts", Texts)
    return entry.value if entry else Texts()


class Kept(Struct, frozen=True):
    """Texts in the order of their first handling, and the ids of their messages."""

    texts: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


class Memory:
    """A service that keeps each text once, however often it is delivered.

    `handled` is what this instance has handled, `gate` holds its handlers back while it is shut.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.service = Service(name, **options)
        self.kept = self.service.event("kept", Noted)
        self.service.command("keep", public=True)(self.keep)
        self.service.request("texts", public=True)(self.texts)
        self.handled: list[tuple[str, str]] = []
        self.times: list[int] = []
        """When it handled them, by the clock that all of this process share."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def keep(self, ctx: Context, note: Note) -> None:
        """Keep a text, and say so."""
        await self.gate.wait()
        self.handled.append((ctx.tenant, note.text))
        self.times.append(time.perf_counter_ns())
        entry = await ctx.state.get("kept", Kept)
        kept = entry.value if entry else Kept()
        if ctx.message_id not in kept.ids:
            kept = Kept((*kept.texts, note.text), (*kept.ids, ctx.message_id))
            if entry is None:
                await ctx.state.create("kept", kept)
            else:
                await ctx.state.update("kept", kept, entry.revision)
        ctx.emit(self.kept, Noted(note.text, ctx.attempt))

    async def texts(self, ctx: Context) -> Texts:
        """What was kept."""
        entry = await ctx.state.get("kept", Kept)
        return Texts(entry.value.texts) if entry else Texts()


def counting(name: str, version: str = "1.0.0", **options: Any) -> Service:
    """A fresh small service, for tests that start and stop their own."""
    service = Service(name, version=version, **options)

    @service.request("who", public=True, timeout=5.0)
    async def who(_ctx: Context) -> Note:
        """Tell which version answers."""
        return Note(version)

    return service


class Picky(Struct, frozen=True):
    """A message whose own check fails in a way that no decoder expects."""

    text: str

    def __post_init__(self) -> None:
        if self.text == "bad":
            raise RuntimeError("secret-inside")


def picky(name: str) -> Service:
    """Few slots, so that one which is lost is missed, and answers of any size."""
    service = Service(name, version="1.0.0", concurrency=4)

    @service.request("check", public=True, timeout=5.0)
    async def check(_ctx: Context, message: Picky) -> Note:
        """Answer with the same."""
        return Note(message.text)

    @service.request("grow", public=True, timeout=5.0)
    async def grow(_ctx: Context, note: Note) -> Note:
        """Answer with so many characters."""
        return Note("x" * note.count)

    @service.command("take", public=True)
    async def take(ctx: Context, message: Picky) -> None:
        """Remember."""
        await remember(ctx, Note(message.text))

    service.request("texts", public=True)(texts)
    return service
