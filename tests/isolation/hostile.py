"""A service whose author tries to cross: every handler does to its context what it can.

Kept between messages as a careless or hostile author keeps things: in module variables.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct

from tenantry import Context, Retry, Service, current
from tenantry.context.context import Staged
from tenantry.context.event import Event
from tenantry.context.state import State
from tests.services import Note, Texts


class Way(Struct, frozen=True):
    """How a handler tries it, and on whom."""

    how: str
    other: str = ""
    text: str = "crossed"


class Odd(BaseException):
    """What is no Exception, and so passes most `except` by."""


def hostile(name: str = "hostile") -> tuple[Service, Hostile]:
    """The service, and what it has kept."""
    service = Service(name, version="1.0.0", concurrency=32)
    kept = Hostile(service)
    return service, kept


class Hostile:
    """What the handlers share over all tenants."""

    def __init__(self, service: Service) -> None:
        self.told = service.event("told", Note)
        self.context: Context | None = None
        self.state: State | None = None
        self.copy: contextvars.Context | None = None
        self.gate = asyncio.Event()
        self.done: list[str] = []
        service.request("cross", public=True, timeout=5.0)(self.cross)
        service.command("cross_stored", public=True, retry=Retry(tries=1))(self.cross_stored)
        service.command("waver_stored", public=True, retry=Retry(tries=1))(self.waver_stored)
        service.request("waver", public=True, timeout=5.0)(self.waver)
        service.request("keep", public=True)(self.keep)
        service.request("hold", public=True, timeout=10.0)(self.hold)
        service.request("use_kept", public=True)(self.use_kept)
        service.request("whose", public=True)(self.whose)
        service.request("texts", public=True)(self.texts)
        service.request("write", public=True)(self.write)

    async def cross(self, ctx: Context, way: Way) -> Note:
        """Try one way, and tell what came of it."""
        result = WAYS[way.how](self, ctx, way)
        if isinstance(result, Awaitable):
            result = await result
        return Note(str(result))

    async def cross_stored(self, ctx: Context, way: Way) -> None:
        """The same by a command."""
        await self.cross(ctx, way)

    async def waver(self, ctx: Context, note: Note) -> Texts:
        """Cancel itself before await number `count`, or raise what is no Exception."""
        if note.text == "odd":
            raise Odd(note.text)
        for number, step in enumerate(_steps(ctx, note.text)):
            if number == note.count:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            await step()
        ctx.emit(self.told, note)
        return Texts((ctx.tenant, current().tenant))

    async def waver_stored(self, ctx: Context, note: Note) -> None:
        """The same by a command."""
        await self.waver(ctx, note)
        self.done.append(ctx.tenant)

    async def keep(self, ctx: Context) -> None:
        """Keep all that there is of a context."""
        self.context, self.state, self.copy = ctx, ctx.state, contextvars.copy_context()

    async def hold(self, ctx: Context) -> None:
        """Keep it, and stay at work."""
        await self.keep(ctx)
        await self.gate.wait()

    async def use_kept(self, ctx: Context, way: Way) -> Note:
        """Use what another message has kept."""
        assert self.context is not None
        assert self.state is not None
        assert self.copy is not None
        result = USES[way.how](self, self.context, self.state, self.copy)
        if isinstance(result, Awaitable):
            result = await result
        return Note(str(result))

    async def whose(self, ctx: Context) -> Texts:
        """Whose each kind of background work thinks it is."""
        loop, found = asyncio.get_running_loop(), list[str]()
        found.append(await asyncio.create_task(_later()))
        found.append(await asyncio.to_thread(_here))
        with ThreadPoolExecutor(1) as pool:
            found.append(await loop.run_in_executor(pool, _here))
            found.append(await loop.run_in_executor(pool, contextvars.copy_context().run, _here))
        thread = threading.Thread(target=lambda: found.append(_here()))
        thread.start()
        await asyncio.to_thread(thread.join)
        called = loop.create_future()
        loop.call_soon(lambda: called.set_result(_here()))
        found.append(await called)
        return Texts(tuple(found))

    async def write(self, ctx: Context, way: Way) -> None:
        """Keep a text under a name that the asker chooses."""
        await ctx.state.put(way.how, way.text)

    async def texts(self, ctx: Context) -> Texts:
        """All that is kept."""
        found = [await ctx.state.get(name, str) for name in await ctx.state.names()]
        return Texts(tuple(entry.value for entry in found if entry is not None))


def _here() -> str:
    try:
        return current().tenant
    except LookupError:
        return ""


async def _later() -> str:
    await asyncio.sleep(0.001)
    return _here()


def _steps(ctx: Context, text: str) -> list[Callable[[], Awaitable[Any]]]:
    """What a handler may wait for."""
    return [
        lambda: asyncio.sleep(0),
        lambda: asyncio.sleep(0.001),
        lambda: ctx.state.put("wavered", text),
        lambda: ctx.state.get("wavered", str),
        lambda: ctx.request("notes.private", Note(text), type=Note),
        lambda: asyncio.to_thread(_here),
        lambda: asyncio.create_task(_later()),
    ]


STEPS = 7


def _set(name: str, value: Callable[[str], Any]) -> Callable[[Hostile, Context, Way], Any]:
    def cross(_kept: Hostile, ctx: Context, way: Way) -> None:
        setattr(ctx, name, value(way.other))
        ctx.send("notes.remember", Note(way.text))

    return cross


def _stage(subject: str) -> Callable[[Hostile, Context, Way], None]:
    """Past the library's own methods, into what it will publish."""

    def cross(_kept: Hostile, ctx: Context, way: Way) -> None:
        to = subject.format(other=way.other, own=ctx.tenant)
        body = b'{"text": "%s"}' % way.text.encode()
        ctx._staged.append(Staged(to, body, f"{way.other}.m.{'0' * 32}"))

    return cross


def _stage_schedule(_kept: Hostile, ctx: Context, way: Way) -> None:
    _schedule(ctx, way.other, way.other)


def _stage_timer(_kept: Hostile, ctx: Context, way: Way) -> None:
    """A schedule of one's own, with a timer that is another's."""
    _schedule(ctx, ctx.tenant, way.other)


def _schedule(ctx: Context, tenant: str, timed: str) -> None:
    name = "a" * 32
    fields = {"Tenant-Command": "notes.remember", "Tenant-Due": "0"}
    timer = Staged(
        f"timer.{timed}.hostile.{name}",
        b"",
        headers={
            "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
            "Nats-Schedule-Target": f"due.{timed}.hostile.{name}",
        },
    )
    schedule = f"schedule.{tenant}.hostile.{name}"
    ctx._staged.append(Staged(schedule, b'{"text": "crossed"}', headers=fields, timer=timer))


def _reflect(_kept: Hostile, ctx: Context, way: Way) -> None:
    """As deep as one may go: the claims themselves are exchanged."""
    import msgspec

    object.__setattr__(ctx, "_claims", msgspec.structs.replace(ctx.claims, tenant=way.other))
    ctx.send("notes.remember", Note(way.text))


WAYS: dict[str, Callable[[Hostile, Context, Way], Any]] = {
    "own": lambda _, ctx, way: ctx.send("notes.remember", Note(way.text)),
    "send": lambda _, ctx, way: ctx.send(f"{way.other}.notes.remember", Note(way.text)),
    "send_subject": lambda _, ctx, way: ctx.send(
        f"tenant.{way.other}.notes.remember", Note(way.text)
    ),
    "send_up": lambda _, ctx, way: ctx.send(f"../{way.other}/notes.remember", Note(way.text)),
    "send_later": lambda _, ctx, way: ctx.send(
        f"{way.other}.notes.remember", Note(way.text), after=0
    ),
    "ask": lambda _, ctx, way: ctx.request(f"{way.other}.notes.private", Note(way.text), type=Note),
    "emit": lambda _, ctx, way: ctx.emit(
        Event(ctx.service, f"x.{way.other}.notes.noted", Note), Note(way.text)
    ),
    "emit_lines": lambda _, ctx, way: ctx.emit(
        Event(ctx.service, f"x 2\r\n{{}}\r\nPUB tenant.{way.other}.notes.noted", Note),
        Note(way.text),
    ),
    "cancel": lambda _, ctx, way: ctx.cancel(f"{way.other}.hostile.{'a' * 32}"),
    "tenant": _set("tenant", lambda other: other),
    "service": _set("service", lambda _: "notes"),
    "claims": _set("claims", lambda other: other),
    "token": _set("token", lambda other: other),
    "turn": _set("turn", lambda _: None),
    "plan": _set("plan", lambda _: "business"),
    "roles": _set("roles", lambda _: ("admin",)),
    "new": _set("other_tenant", lambda other: other),
    "stage": _stage("tenant.{other}.notes.remember"),
    "stage_event": _stage("tenant.{other}.notes.noted"),
    "stage_request": _stage("request.{other}.notes.echo"),
    "stage_letter": _stage("dead.{other}.notes.1"),
    "stage_state": _stage("$KV.state.{other}.notes.texts"),
    "stage_schedule": _stage_schedule,
    "stage_timer": _stage_timer,
    "reflect": _reflect,
}

Use = Callable[[Hostile, Context, State, contextvars.Context], Any]

USES: dict[str, Use] = {
    "emit": lambda kept, ctx, _state, _copy: ctx.emit(kept.told, Note("crossed")),
    "send": lambda _, ctx, _state, _copy: ctx.send("notes.remember", Note("crossed")),
    "later": lambda _, ctx, _state, _copy: ctx.send("notes.remember", Note("x"), after=0),
    "cancel": lambda _, ctx, _state, _copy: ctx.cancel("a" * 32),
    "ask": lambda _, ctx, _state, _copy: ctx.request("notes.private", Note("x"), type=Note),
    "state": lambda _, ctx, _state, _copy: ctx.state.put("crossed", "crossed"),
    "read": lambda _, _ctx, state, _copy: state.get("secret", str),
    "write": lambda _, _ctx, state, _copy: state.put("secret", "crossed"),
    "names": lambda _, _ctx, state, _copy: state.names(),
    "clear": lambda _, _ctx, state, _copy: state.clear(),
    "task": lambda _, ctx, _state, _copy: asyncio.create_task(
        ctx.request("notes.private", Note("x"), type=Note)  # type: ignore[arg-type]
    ),
    "thread": lambda kept, ctx, _state, _copy: asyncio.to_thread(
        ctx.emit, kept.told, Note("crossed")
    ),
}
