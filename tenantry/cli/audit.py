"""`tenantry audit`: refusals that look like attacks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import structlog
from cyclopts import Parameter

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus.scan import find_last, find_next, scan
from tenantry.cli import connection, loop, moment, output
from tenantry.cli.connection import Connection
from tenantry.cli.options import Output
from tenantry.messages import SecurityEvent, SecurityKind
from tenantry.streams import AUDIT

_POLL = 0.5
_PATIENCE = 30.0
_WIDTHS = (20, 22, 7, 14, 14, 16)
_decode = msgspec.json.Decoder(SecurityEvent).decode

log = structlog.get_logger("tenantry.audit")


class _Wanted(msgspec.Struct, frozen=True):
    tenant: str | None
    kind: SecurityKind | None
    since: float | None
    follow: bool

    def has(self, event: SecurityEvent) -> bool:
        return self.tenant is None or self.tenant in (event.tenant, event.victim)


def audit(
    *,
    tenant: Annotated[
        str | None, Parameter(help="only what this tenant has tried, or what was aimed at it")
    ] = None,
    kind: Annotated[SecurityKind | None, Parameter(help="only these")] = None,
    since: Annotated[
        str | None, Parameter(help="from then on: 2h for so long ago, or 2026-11-21T08:00:00Z")
    ] = None,
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), negative="", help="go on with those to come")
    ] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show refusals that look like attacks, the oldest first.

    Each line stands for COUNT attempts of one source within a few seconds:
    by whose credentials, aimed at whom, from where, on what subject. JSON
    is one object a line, with more fields.

    Violations of permissions are told only where the tenants worker reads
    the server's log: under `tenantry up`, or with `run --server-log`.
    """
    if tenant is not None:
        subjects.check_tenant(tenant)
    start = moment.parse_time(since) if since is not None else None
    loop.run(_show(at, _Wanted(tenant, kind, start, follow), form))


async def _show(at: Connection, wanted: _Wanted, form: output.Format) -> None:
    async with await at.connect("control") as bus:
        if form == "table":
            _row("TIME", "KIND", "COUNT", "TENANT", "AIMED AT", "HOST", "SUBJECT, WHY")
        async for event in _events(bus, wanted):
            if wanted.has(event):
                _print(event, form)


async def _events(bus: Bus, wanted: _Wanted) -> AsyncIterator[SecurityEvent]:
    subject, position = f"audit.*.{wanted.kind or '*'}", 1
    if wanted.since is not None:
        found = await find_next(bus, AUDIT, subject, at=wanted.since)
        if found is None and not wanted.follow:
            return
        position = found.seq if found is not None else await find_last(bus, AUDIT, subject) + 1
    while True:
        async for message in scan(bus, AUDIT, subject, first=position, patience=_PATIENCE):
            position = message.seq + 1
            try:
                yield _decode(message.data)
            except msgspec.MsgspecError as error:
                log.warning("not readable", stream=AUDIT, seq=message.seq, why=str(error))
        if not wanted.follow:
            return
        await asyncio.sleep(_POLL)


def _print(event: SecurityEvent, form: output.Format) -> None:
    if form == "json":
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.flush()
        return
    what = ": ".join(part for part in (event.subject, event.why) if part)
    when = output.moment(event.last)
    _row(when, event.kind, event.count, event.tenant, event.victim, event.host, what)


def _row(*cells: object) -> None:
    fixed = (f"{output.text(cell):<{width}}" for cell, width in zip(cells, _WIDTHS, strict=False))
    output.line("  ".join((*fixed, output.text(cells[-1]))).rstrip())
