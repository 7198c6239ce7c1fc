"""`tenantry top`: the tenants of the mesh, live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from tenantry import subjects, tasks
from tenantry.bus import Bus
from tenantry.cli import connection, loop, output, standing
from tenantry.cli.connection import Connection
from tenantry.cli.options import Output
from tenantry.cli.standing import Column, Slow, Standing, Standings
from tenantry.errors import TenantryError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

COLUMNS = (
    *("tenant", "rate/s", "limited/s", "errors/s", "running"),
    *("p50 ms", "p99 ms", "lag", "quota used"),
)
_SORTED: tuple[Column | None, ...] = (
    *(None, "rate", "limited", "errors", "running"),
    *(None, "latency", "lag", "quota"),
)
"""What each column is sorted by."""
_KEYS: dict[str, Column] = {
    "r": "rate",
    "l": "limited",
    "e": "errors",
    "u": "running",
    "p": "latency",
    "g": "lag",
    "o": "quota",
}
_SLOW = 10.0
"""Seconds between two looks at what costs JetStream something."""
_NOBODY = "no router answers: does one run, and may its role listen on stats.tenants?"
_SUSPICIOUS = {2: "yellow", 3: "red"}


def top(
    *,
    sort: Annotated[Column, Parameter(help="the column that says who is first")] = "rate",
    limit: Annotated[
        int, Parameter(alias="-n", validator=Number(gte=1, lte=500), help="tenants at most")
    ] = 20,
    tenant: Annotated[str | None, Parameter(help="only this one")] = None,
    every: Annotated[
        float, Parameter(validator=Number(gte=0.5, lte=3600), help="seconds between two looks")
    ] = 2.0,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show the tenants of the mesh, the busiest first: live, or once in a pipe.

    Keys: r, l, e, u, p, g and o sort by rate, limited, errors, running, latency
    (p99), lag and quota; q or Ctrl-C ends it.

    rate/s: messages that routers admit. limited/s: refused because they are
    over a limit (429). errors/s: refused for another reason, or failed in a
    handler. running: in the hands of a service. p50, p99: how long handlers
    took, as the upper bound of a bucket. lag: what waits in the journal. quota
    used: of the quota of which most is used, in percent of what the plan
    includes in this day or month; more than 100 is overage. JSON has the counts
    of all.

    Rates and latencies are those of the last ten to twenty seconds; lag and
    quota are looked at every ten. Sorted by these, tenants are found that do
    nothing now; by the others, only those that were there in the last minute.
    """
    if tenant is not None:
        subjects.check_tenant(tenant)
    if form == "json" or not sys.stdout.isatty():
        found = loop.run(_once(at, sort, limit, tenant))
        if not found.routers:
            output.note(f"tenantry: {_NOBODY}")
        if form == "json":
            output.json(found)
        else:
            output.table(COLUMNS, [_row(each) for each in found.tenants])
        return
    loop.run(_live(at, _View(sort, limit, tenant, every)))


async def _once(at: Connection, by: Column, limit: int, tenant: str | None) -> Standings:
    async with await at.connect("control") as bus:
        wanted = [tenant] if tenant is not None else await standing.first(bus, by, limit)
        found = await standing.look(bus, by, limit, wanted)
        names = [each.tenant for each in found.tenants]
        return standing.with_slow(found, await standing.slow(bus, names))


class _View:
    """What is shown, and what was asked for."""

    def __init__(self, by: Column, limit: int, tenant: str | None, every: float) -> None:
        self.by = by
        self.limit = limit
        self.tenant = tenant
        self.every = every
        self.found: Standings | None = None
        self.slow: dict[str, Slow] = {}
        self.why = ""
        """Why what is shown is old."""
        self.ended = asyncio.Event()
        self.again = asyncio.Event()
        self.sorted = asyncio.Event()
        """Another column is asked for."""
        self.first: dict[Column, list[str]] = {}
        """Who is first by a column that only JetStream knows."""

    @property
    def wanted(self) -> list[str] | None:
        """Whom to ask for; None for those that are first by what instances know."""
        return [self.tenant] if self.tenant is not None else self.first.get(self.by)

    def press(self, key: str) -> None:
        """Somebody has pressed a key."""
        if key in ("q", "\x03"):
            self.ended.set()
        elif key in _KEYS:
            self.by = _KEYS[key]
            self.sorted.set()
        else:
            return
        self.again.set()

    def draw(self) -> RenderableType:
        """The screen."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        if self.found is None:
            return Text(self.why or "asking all instances …")
        found = standing.with_slow(self.found, self.slow)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        # A narrow screen may cut figures, but no id.
        longest = max((len(each.tenant) for each in found.tenants), default=0)
        for index, name in enumerate(COLUMNS):
            mark = "▾ " if found.by == _SORTED[index] else ""  # in front: a narrow screen cuts
            table.add_column(
                mark + name,
                justify="left" if index == 0 else "right",
                no_wrap=True,
                min_width=None if index else longest,
            )
        for each in found.tenants:
            cells = [Text(output.text(cell)) for cell in _row(each)]
            for index, colour in _SUSPICIOUS.items():
                if (each.limited, each.errors)[index - 2]:
                    cells[index].stylize(colour)
            table.add_row(*cells)
        head = (
            f"{time.strftime('%H:%M:%S', time.localtime(found.at))}  routers {found.routers}, "
            f"instances of services {found.instances}, tenants in the last minute {found.known}"
        )
        lines = [Text(head), Text("r l e u p g o sort, q quits", style="dim")]
        if self.why:
            lines.append(Text(self.why, style="red"))
        return Group(*lines, table)


async def _live(at: Connection, view: _View) -> None:
    from rich.console import Console
    from rich.live import Live

    async with await at.connect("control") as bus:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, view.press, "q")
        console = Console()
        with (
            _keys(view),
            Live(view.draw(), console=console, screen=True, auto_refresh=False) as live,
        ):
            work = [
                asyncio.create_task(_follow(bus, view, live)),
                asyncio.create_task(_follow_slow(bus, view)),
            ]
            ended = asyncio.create_task(view.ended.wait())
            done, _ = await asyncio.wait({*work, ended}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*work, ended):
                await tasks.end(task)
        for task in done:
            task.result()


async def _follow(bus: Bus, view: _View, live: Live) -> None:
    """Look again and again, and at once when another column is asked for."""
    while True:
        view.again.clear()
        try:
            view.found = await standing.look(bus, view.by, view.limit, view.wanted)
            view.why = "" if view.found.routers else _NOBODY
        except TenantryError as error:
            view.why = output.error_line(error)
        live.update(view.draw(), refresh=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(view.every):
                await view.again.wait()


async def _follow_slow(bus: Bus, view: _View) -> None:
    """Look rarely at what costs JetStream something, and only for the tenants that are shown."""
    while True:
        view.sorted.clear()
        by, names = view.by, [each.tenant for each in view.found.tenants] if view.found else []
        with contextlib.suppress(TenantryError):
            found = await standing.first(bus, by, view.limit) if view.tenant is None else None
            if found is not None:
                view.first[by] = names = found
            view.slow = await standing.slow(bus, names) if names else {}
            view.again.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SLOW if names or by in view.first else 0.2):
                await view.sorted.wait()


@contextlib.contextmanager
def _keys(view: _View) -> Iterator[None]:
    """Hear each key as it is pressed, and leave the terminal as it was."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    event_loop = asyncio.get_running_loop()

    def pressed() -> None:
        for key in os.read(handle, 64).decode("utf-8", "replace"):
            view.press(key)

    tty.setcbreak(handle, termios.TCSANOW)
    event_loop.add_reader(handle, pressed)
    try:
        yield
    finally:
        event_loop.remove_reader(handle)
        termios.tcsetattr(handle, termios.TCSANOW, before)


def _row(each: Standing) -> tuple[object, ...]:
    quota = None if each.quota_percent is None else f"{each.quota_percent:.0f} % {each.quota_name}"
    return (
        each.tenant,
        f"{each.rate:.1f}",
        f"{each.limited:.1f}",
        f"{each.errors:.1f}",
        each.running,
        None if each.p50_ms is None else f"{each.p50_ms:g}",
        None if each.p99_ms is None else f"{each.p99_ms:g}",
        each.lag,
        quota,
    )
