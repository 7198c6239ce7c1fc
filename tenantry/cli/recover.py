"""`tenantry recover`: bring a tenant's state back to what it was, beside the live one first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from tenantry import subjects
from tenantry.cli import confirm, connection, loop, moment, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import control
from tenantry.cli.options import Output, TenantId
from tenantry.cli.replay import Rate, Skip, Yes, asker, call_off, living, must_run, sequence, watch
from tenantry.cli.usage import UsageError
from tenantry.errors import Conflict, NotFound, TenantryError
from tenantry.messages import Replay, Tenant, TenantRef
from tenantry.replays import Difference, Replays

_SHOWN = 60

Services = Annotated[
    Sequence[str],
    Parameter(
        name="--service",
        help="only this service; several may be given; by default all that can be replayed",
    ),
]


def recover(
    tenant: TenantId,
    /,
    *,
    until: Annotated[
        str | None, Parameter(help=f"the state as it was before this: {moment.HELP}")
    ] = None,
    skip: Skip = (),
    service: Services = (),
    back: Annotated[
        bool, Parameter(negative="", help="go back to the state before the last recovery")
    ] = False,
    rate: Rate = 0.0,
    yes: Yes = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> int:
    """Rebuild TENANT's state from its journal, show the difference, then swap.

    The services' own handlers fill a namespace beside the live one, which
    stays in use meanwhile. With --until the new state has nothing of what
    came at or after it; without it (say with --skip) it has everything up
    to the swap. What comes after the swap is handled in the new state. The
    old one is kept: --back goes back to it. It covers what services keep in
    `ctx.state`, by handlers that they declare replayable.
    """
    subjects.check_tenant(tenant)
    for name in service:
        subjects.check_name(name, "service")
    if back:
        if until or skip:
            raise UsageError("--back takes no --until and no --skip")
        return _go_back(at, tenant, service, form)
    if until is None and not skip:
        raise UsageError("until when, or without what?", hint="give --until T or --skip SEQ")
    asked = loop.run(_ask(at, tenant, service, until, skip, rate))
    try:
        ready = watch(at, asked, frozenset({"ready"}))
        if bad := [each for each in ready if each.state != "ready"]:
            why = "; ".join(f"{each.service} {each.state} {each.error}".strip() for each in bad)
            raise Conflict(f"nothing was swapped: {why}")
        differences = loop.run(_differences(at, ready))
        if form == "table":
            _print(ready, differences)
        if not yes:
            confirm.yes(f"Make this the live state of {tenant}")
    except (KeyboardInterrupt, TenantryError):
        loop.run(_throw_away(at, asked))
        raise
    done = loop.run(_swap(at, ready))
    if form == "json":
        output.json(
            [
                {"replay": each, "differences": [_plain(one) for one in found]}
                for each, found in zip(done, differences, strict=True)
            ]
        )
    else:
        output.line(f"swapped; `tenantry recover {tenant} --back` goes back")
    return 0


async def _ask(
    at: Connection,
    tenant: str,
    services: Sequence[str],
    until: str | None,
    skip: Sequence[int],
    rate: float,
) -> list[Replay]:
    """Ask every service; where one refuses, none is left running."""
    asked: list[Replay] = []
    async with control(at) as mesh:
        await living(mesh, tenant)
        replays = Replays(mesh.bus)
        names = services or await replays.recoverable()
        if not names:
            raise NotFound("no service declares anything replayable")
        end = await sequence(replays, until)
        for name in names:
            await replays.check(tenant, name, until=end, skip=skip)
            await must_run(replays, name)
        try:
            for name in names:
                asked.append(  # noqa: PERF401  (what was asked before one refuses must be known)
                    await replays.ask(
                        tenant,
                        name,
                        by=asker(),
                        until=end,
                        skip=skip,
                        rate=rate,
                        recovery=True,
                    )
                )
        except TenantryError:
            for each in asked:
                await _cancel(replays, each)
            raise
    return asked


async def _throw_away(at: Connection, asked: Sequence[Replay]) -> None:
    async with await at.connect("control") as bus:
        for each in asked:
            await _cancel(Replays(bus), each)


async def _cancel(replays: Replays, asked: Replay) -> None:
    try:
        await call_off(replays, asked.tenant, asked.service)
    except NotFound:  # it has ended by itself
        await replays.forget(asked.tenant, asked.service, asked.generation)


async def _differences(at: Connection, ready: Sequence[Replay]) -> list[list[Difference]]:
    async with await at.connect("control") as bus:
        return [await Replays(bus).differences(each) for each in ready]


async def _swap(at: Connection, ready: Sequence[Replay]) -> list[Replay]:
    done = []
    async with await at.connect("control") as bus:
        replays = Replays(bus)
        for each in ready:
            former = (await replays.cursor(each.tenant, each.service)).former
            await replays.swap(each.tenant, each.service)
            last = [now async for now in _ended(replays, each)][-1]
            await replays.forget(each.tenant, each.service, former)
            done.append(last)
    return done


async def _ended(replays: Replays, replay: Replay) -> Any:
    async for now in replays.follow(replay, frozenset()):
        yield now


def _go_back(at: Connection, tenant: str, services: Sequence[str], form: output.Format) -> int:
    async def go() -> list[str]:
        gone = []
        async with control(at) as mesh:
            await mesh.call("show", TenantRef(id=tenant), Tenant)
            replays = Replays(mesh.bus)
            for name in services or await replays.recoverable():
                if services or (await replays.cursor(tenant, name)).former is not None:
                    await replays.back(tenant, name)
                    gone.append(name)
        return gone

    gone = loop.run(go())
    if not gone:
        raise NotFound(f"there is no former state of {tenant} to go back to")
    if form == "json":
        output.json(gone)
    else:
        output.line(f"{tenant} is back in its former state in {', '.join(gone)}")
    return 0


def _print(ready: Sequence[Replay], differences: Sequence[Sequence[Difference]]) -> None:
    for replay, found in zip(ready, differences, strict=True):
        left = f", {replay.failed} failed and left out" if replay.failed else ""
        output.line(f"{replay.service}: {replay.handled} messages handled again{left}")
        rows = [(each.name, _short(each.before), _short(each.after)) for each in found]
        if rows:
            output.table(("name", "live", "recovered"), rows)
        else:
            output.line("  no difference")


def _short(value: bytes | None) -> str:
    text = "(none)" if value is None else value.decode("utf-8", "backslashreplace")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _plain(difference: Difference) -> dict[str, Any]:
    return {
        "name": difference.name,
        "before": _json(difference.before),
        "after": _json(difference.after),
    }


def _json(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except msgspec.MsgspecError:
        return json.dumps(value.decode("utf-8", "backslashreplace"))
