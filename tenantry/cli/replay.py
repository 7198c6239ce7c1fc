"""`tenantry replay …`: have a service handle one tenant's journal once more."""

from __future__ import annotations

import contextlib
import getpass
import platform
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from tenantry import subjects
from tenantry.cli import confirm, connection, loop, moment, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import control
from tenantry.cli.options import Output, TenantId
from tenantry.cli.progress import progress
from tenantry.cli.usage import UsageError, examples
from tenantry.control import Control
from tenantry.errors import Conflict, ConnectionFailed, DeadlineExceeded, NotFound, Unavailable
from tenantry.messages import UNDER_WAY, Replay, Tenant, TenantRef
from tenantry.replays import Count, Replays

RATE = 1_000.0

app = App(
    name="replay",
    help="Have a service handle one tenant's journal once more, and see how far it is.",
    help_epilogue=examples(
        "tenantry replay acme --service ledger          # all, into a clean state",
        "tenantry replay acme --service ledger --dry-run",
        "tenantry replay acme --service ledger --since 2h --actions orders.placed",
        "tenantry replay list",
        "tenantry replay cancel acme --service ledger",
        "tenantry replay start list --service ledger    # a tenant named like a command",
    ),
)

ServiceName = Annotated[str, Parameter(help="the service whose handlers run again")]
Actions = Annotated[
    Sequence[str],
    Parameter(
        name=("--actions", "--action"),
        help="only this SERVICE.ACTION; several may be given, also as a,b",
    ),
]
Skip = Annotated[
    Sequence[int], Parameter(help="leave out this sequence of the journal; several may be given")
]
Rate = Annotated[
    float, Parameter(validator=Number(gte=0), help="messages a second at most; 0: no limit")
]
Yes = Annotated[bool, Parameter(negative="", help="do not ask")]
Detach = Annotated[
    bool, Parameter(name=("--detach", "-d"), negative="", help="do not wait for its end")
]


@app.default
@app.command(name="start")
def start(
    tenant: TenantId,
    /,
    *,
    service: ServiceName,
    since: Annotated[str | None, Parameter(help=f"from here on: {moment.HELP}")] = None,
    until: Annotated[str | None, Parameter(help=f"before this: {moment.HELP}")] = None,
    actions: Actions = (),
    skip: Skip = (),
    rate: Rate = RATE,
    reset: Annotated[
        bool | None,
        Parameter(help="clear the tenant's state first; by default when it begins at the start"),
    ] = None,
    dry_run: Annotated[
        bool, Parameter(negative="", help="only count what would be handled again")
    ] = False,
    detach: Detach = False,
    yes: Yes = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> int:
    """Have SERVICE handle TENANT's messages once more, in order.

    Only handlers that are declared replayable run. What they emit, send and
    ask for is held back. The tenant's live messages for this service wait
    and follow in order; other tenants notice nothing. A service that has a
    reset hook is cleared first, unless --since is given. It goes on by itself
    after a kill of anything, and when this command is interrupted.
    """
    subjects.check_tenant(tenant)
    subjects.check_name(service, "service")
    names = [name for each in actions for name in each.split(",")]
    first, last, counts, clears, lost = loop.run(
        _plan(
            at,
            tenant,
            service,
            (since, until),
            count=dry_run,
            wait=not detach,
            actions=names,
            skip=skip,
            reset=reset,
        )
    )
    if dry_run:
        return _print_plan(counts, names, form)
    if lost:
        output.note(f"note: {lost}")
    if not yes and (clears or lost):
        what = "clear its state, then " if clears else ""
        confirm.yes(f"In {service}, {what}handle the journal of {tenant} again")
    asked = loop.run(
        _ask(
            at,
            tenant,
            service,
            since=first,
            until=last,
            actions=names,
            skip=skip,
            rate=rate,
            reset=reset,
        )
    )
    if detach:
        print_replays([asked], form)
        return 0
    return _watch_one(at, asked, form)


@app.command(
    name="list", help_epilogue=examples("tenantry replay list", "tenantry replay list -o json")
)
def list_(
    tenant: Annotated[str | None, Parameter(help="only of this tenant")] = None,
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """List the last replay of each tenant and service: who asked, what it did."""

    async def get() -> list[Replay]:
        async with control(at) as mesh:
            if tenant is not None:
                await mesh.call("show", TenantRef(id=tenant), Tenant)
            return await Replays(mesh.bus).all()

    found = [each for each in loop.run(get()) if tenant in (None, each.tenant)]
    print_replays(found, form)


@app.command(help_epilogue=examples("tenantry replay follow acme --service ledger"))
def follow(
    tenant: TenantId,
    /,
    *,
    service: ServiceName,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> int:
    """Follow a replay that runs, to its end."""
    return _watch_one(at, loop.run(_last(at, tenant, service)), form)


@app.command(help_epilogue=examples("tenantry replay cancel acme --service ledger"))
def cancel(
    tenant: TenantId,
    /,
    *,
    service: ServiceName,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Cancel a replay or a recovery that is under way.

    What a replay has done stays done: the tenant's live messages go on from
    there. What a recovery has filled is thrown away.
    """

    async def end() -> Replay:
        async with await at.connect("control") as bus:
            return await call_off(Replays(bus), tenant, service)

    print_replays([loop.run(end())], form)


async def call_off(replays: Replays, tenant: str, service: str) -> Replay:
    """Cancel one, see to its end, and throw away what it filled. Raises :class:`NotFound`.

    Where the service does not run it ends later, and the next one throws away what it filled.
    """
    asked = await replays.cancel(tenant, service)
    if asked.state in UNDER_WAY and not await replays.runs(service):
        output.note(f"{service} does not run: this ends as soon as it does")
        return asked
    last = [each async for each in replays.follow(asked, frozenset())][-1]
    await replays.forget(tenant, service, last.generation)
    return last


# --- before it begins -----------------------------------------------------------------------------


async def _plan(
    at: Connection,
    tenant: str,
    service: str,
    span: tuple[str | None, str | None],
    *,
    count: bool,
    wait: bool,
    reset: bool | None,
    **options: Any,
) -> tuple[int, int, list[Count], bool, str]:
    """The range as sequences, what is in it, whether the state is cleared, and what is missing."""
    async with control(at) as mesh:
        known = await living(mesh, tenant)
        replays = Replays(mesh.bus)
        first, last = [await sequence(replays, each) for each in span]
        declared = await replays.check(
            tenant, service, since=first, until=last, reset=reset, **options
        )
        if wait and not count:
            await must_run(replays, service)
        clears = reset if reset is not None else declared.resets and not first
        lost = ""
        if not first and clears:
            lost = _missing(known, await replays.begins(tenant))
        if not count:
            return first, last, [], bool(clears), lost
        with progress(f"counting {tenant}") as tell:
            counts = await replays.count(
                tenant,
                service,
                since=first,
                until=last,
                progress=tell,
            )
        return first, last, counts, bool(clears), lost


async def must_run(replays: Replays, service: str) -> None:
    """Raise :class:`Unavailable` where nobody would begin: it could be waited for in vain."""
    if not await replays.runs(service):
        raise Unavailable(
            f"{service} does not run, and only it can do this",
            hint="start it, or name others with --service; `tenantry services` shows what runs",
        )


async def living(mesh: Control, tenant: str) -> Tenant:
    """The tenant; raises :class:`NotFound`, and :class:`Conflict` for one that was deleted."""
    found = await mesh.call("show", TenantRef(id=tenant), Tenant)
    if found.state == "deleted":
        raise Conflict(
            f"tenant {tenant} was deleted, so nothing of it is handled again",
            hint="`tenantry journal export` and `import --as` carry what is left to another",
        )
    return found


def _missing(tenant: Tenant, begins: float | None) -> str:
    """A warning where the journal does not reach back to the tenant's first days."""
    if begins is None:
        return f"the journal holds nothing of {tenant.id} any more"
    if begins - tenant.created < 60.0:
        return ""
    return (
        f"the journal of {tenant.id} begins at {output.moment(begins)}, the tenant is from "
        f"{output.moment(tenant.created)}: what was before is not in it any more"
    )


async def sequence(replays: Replays, text: str | None) -> int:
    """The sequence that a point of the journal means; 0 for none."""
    if text is None:
        return 0
    point = moment.parse(text)
    if point.time is not None:
        return await replays.at(point.time)
    if not point.seq:
        raise UsageError("sequences begin at 1")
    return point.seq


def asker() -> str:
    """Who sits at this terminal, as far as it knows."""
    with contextlib.suppress(KeyError, OSError):
        return f"{getpass.getuser()}@{platform.node()}"
    return platform.node()


async def _ask(at: Connection, tenant: str, service: str, **options: object) -> Replay:
    async with await at.connect("control") as bus:
        return await Replays(bus).ask(tenant, service, by=asker(), **options)  # type: ignore[arg-type]


async def _last(at: Connection, tenant: str, service: str) -> Replay:
    async with await at.connect("control") as bus:
        found = await Replays(bus).get(tenant, service)
    if found is None:
        raise NotFound(f"{service} has had no replay of {tenant}")
    return found


# --- while it runs, and after ---------------------------------------------------------------------


def watch(at: Connection, asked: Sequence[Replay], until: frozenset[str]) -> list[Replay]:
    """Show how far they are until each has ended or is in a state of `until`."""

    async def see() -> list[Replay]:
        async with await at.connect("control") as bus:
            return [await _see(Replays(bus), each, until) for each in asked]

    return loop.run(see())


def _watch_one(at: Connection, asked: Replay, form: output.Format) -> int:
    """Show how far it is, and say how it ended; the exit code."""
    who = f"{asked.tenant} --service {asked.service}"
    try:
        (last,) = watch(at, [asked], frozenset())
    except KeyboardInterrupt:
        output.note(f"it goes on; `tenantry replay cancel {who}` ends it")
        raise
    except (ConnectionFailed, Unavailable, DeadlineExceeded) as lost:
        raise Unavailable(
            f"how far the replay is can't be seen now, but it goes on: {lost.message}",
            hint=f"`tenantry replay follow {who}` shows it, `tenantry replay cancel {who}` ends it",
        ) from None
    return print_end(last, form)


async def _see(replays: Replays, asked: Replay, until: frozenset[str]) -> Replay:
    last = asked
    with progress(f"{asked.service} of {asked.tenant}") as tell:
        async for last in replays.follow(asked, until):
            first = max(last.since, 1)
            if last.state == "asked":
                tell(0, note=f"waits for a replica of {asked.service}")
            else:
                tell(last.next - first, last.end - first, f"{last.handled} handled")
    return last


def print_end(replay: Replay, form: output.Format) -> int:
    """Say how it ended; the exit code."""
    if form == "json":
        output.json(replay)
        return 0 if replay.state == "done" else 1
    parts = [f"{replay.handled} handled", f"{replay.passed} passed over"]
    parts += [f"{replay.suppressed} of what they sent held back"]
    if replay.failed:
        some = ", ".join(map(str, replay.failures))
        parts.append(f"{replay.failed} failed and left out (sequences {some})")
    output.line(f"{replay.state}: {', '.join(parts)}")
    if replay.error:
        output.note(replay.error)
    return 0 if replay.state == "done" else 1


def print_replays(found: Iterable[Replay], form: output.Format) -> None:
    """A table of replays, or all of each as JSON."""
    if form == "json":
        output.json(list(found))
        return
    columns = ("tenant", "service", "kind", "state", "asked", "by", "ended", "handled", "failed")
    output.table(
        columns,
        [
            (
                each.tenant,
                each.service,
                "replay" if each.generation is None else "recovery",
                each.state,
                output.moment(each.asked),
                each.by,
                output.moment(each.ended),
                each.handled,
                each.failed,
            )
            for each in found
        ],
    )


def _print_plan(counts: Sequence[Count], names: Sequence[str], form: output.Format) -> int:
    if form == "json":
        output.json([each._asdict() for each in counts])
        return 0
    rows = [
        (each.action, each.messages, each.replayable and (not names or each.action in names))
        for each in counts
    ]
    output.table(("action", "messages", "handled again"), rows)
    return 0
