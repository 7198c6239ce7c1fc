"""Commands that wait for their time: what operators and the control plane read, and cancel.

`SCHEDULES` holds each under `schedule.<tenant>.<service>.<id>` until it is in the journal. `TIMERS`
only tells when: a timer without a schedule does nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec

from tenantry import subjects
from tenantry.bus import Bus, Message, reading
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.scan import find_last
from tenantry.errors import BadSubject, NotFound, Unavailable
from tenantry.streams import SCHEDULES, TIMERS
from tenantry.wire import headers


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A command that waits for its time. Times are seconds since the epoch, `size` is bytes."""

    id: str
    tenant: str
    service: str
    """Who sends it."""
    command: str
    due: float
    stored: float
    size: int


class Kept(NamedTuple):
    """A schedule with what will be sent."""

    schedule: Schedule
    seq: int
    headers: dict[str, str]
    body: bytes


def check_id(id: str) -> None:  # noqa: A002
    """Raise :class:`BadSubject` for what can be no schedule's id."""
    if not subjects.is_schedule(id):
        raise BadSubject(
            f"{id[:80]!r} is no schedule's id",
            hint="32 hex digits; see `tenantry schedules list`",
        )


async def find(bus: Bus, tenant: str = "*", service: str = "*") -> list[Schedule]:
    """The schedules of one tenant or all, of one service or all, the next one first."""
    found = [
        schedule
        async for message in _headers(bus, subjects.schedule(tenant, service, "*"))
        if (schedule := _listed(message)) is not None
    ]
    return sorted(found, key=lambda schedule: (schedule.due, schedule.tenant, schedule.id))


async def get(bus: Bus, tenant: str, id: str) -> Kept:  # noqa: A002
    """One schedule; raises :class:`NotFound`, and :class:`BadSubject` for what can't be its id."""
    check_id(id)
    async with aclosing(_headers(bus, subjects.schedule(tenant, "*", id))) as messages:
        async for message in messages:
            if (kept := await read(bus, message.subject)) is not None:
                return kept
    raise _unknown(tenant, id)


async def read(bus: Bus, subject: str) -> Kept | None:
    """What waits under `schedule.<tenant>.<service>.<id>`, or None where nothing does.

    Any copy of the stream may answer first; that there is nothing, only its leader can say.
    """
    answer = await bus.call(f"$JS.API.DIRECT.GET.{SCHEDULES}.{subject}")
    if (kept := _kept(answer)) is not None:
        return kept
    if not (last := await find_last(bus, SCHEDULES, subject)):
        return None
    answer = await bus.call(f"$JS.API.DIRECT.GET.{SCHEDULES}", msgspec.json.encode({"seq": last}))
    if (answer.headers or {}).get("Status"):
        raise Unavailable(f"{subject} is not on all copies yet", retry_after=1.0)
    return _kept(answer)


async def drop(bus: Bus, kept: Kept) -> None:
    """Remove exactly this one, and not what may have taken its place meanwhile."""
    where = kept.schedule
    ask = {
        "filter": subjects.schedule(where.tenant, where.service, where.id),
        "seq": kept.seq + 1,
    }
    await js.api(bus, f"STREAM.PURGE.{SCHEDULES}", ask)


async def cancel(bus: Bus, tenant: str, id: str) -> None:  # noqa: A002
    """Cancel one schedule; raises :class:`NotFound`, :class:`BadSubject`."""
    check_id(id)
    subjects.check_tenant(tenant)
    if not await _purge(bus, tenant, id):
        raise _unknown(tenant, id)


async def erase(bus: Bus, tenant: str) -> int:
    """Remove all schedules of one tenant, waiting and due; returns how many there were."""
    return await _purge(bus, subjects.check_tenant(tenant), "*")


async def _purge(bus: Bus, tenant: str, id: str) -> int:  # noqa: A002
    key = (tenant, "*", id)
    answer = await js.api(
        bus, f"STREAM.PURGE.{SCHEDULES}", {"filter": subjects.schedule(*key)}, timeout=30
    )
    for subject in (subjects.timer(*key), subjects.due(*key)):
        await js.api(bus, f"STREAM.PURGE.{TIMERS}", {"filter": subject}, timeout=30)
    return int(answer.get("purged", 0))


def _headers(bus: Bus, filter: str) -> AsyncGenerator[StoredMessage, None]:  # noqa: A002
    """Everything under a subject with wildcards, in the order it was stored, without bodies."""
    return reading.read(bus, SCHEDULES, filter, headers_only=True)


def _listed(message: StoredMessage) -> Schedule | None:
    size = int(message.headers.get("Nats-Msg-Size", "0"))
    return _schedule(message.subject, message.headers, message.time, size)


def _kept(answer: Message) -> Kept | None:
    fields: dict[Any, str] = answer.headers or {}
    if "Nats-Subject" not in fields:
        return None
    stored = dt.datetime.fromisoformat(fields["Nats-Time-Stamp"]).timestamp()
    schedule = _schedule(fields["Nats-Subject"], fields, stored, len(answer.data))
    if schedule is None:
        return None
    return Kept(schedule, int(fields["Nats-Sequence"]), dict(fields), answer.data)


def _schedule(subject: str, fields: dict[Any, str], stored: float, size: int) -> Schedule | None:
    """None for what a cancelled one leaves behind for a second."""
    _, tenant, service, name = subject.split(".")
    if headers.COMMAND not in fields:
        return None
    try:
        due = int(fields.get(headers.DUE, "")) / 1000
    except ValueError:
        due = stored
    return Schedule(
        id=name,
        tenant=tenant,
        service=service,
        command=fields[headers.COMMAND],
        due=due,
        stored=stored,
        size=size,
    )


def _unknown(tenant: str, id: str) -> NotFound:  # noqa: A002
    return NotFound(
        f"tenant {tenant} has no schedule {id}",
        hint="it may have run; see `tenantry schedules list`",
    )
