"""Claiming a partition: wait until its former owner has left it, then take its checkpoint over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from tenantry.delivery import filters, timing, upgrade
from tenantry.delivery.checkpoints import LEFT, Found, Last
from tenantry.delivery.environment import Environment
from tenantry.delivery.filters import Names
from tenantry.delivery.journal_end import restore_end
from tenantry.errors import UnknownAction
from tenantry.messages.checkpoints import Checkpoint, Open

_UPGRADE_POLL = 1.0

log = structlog.get_logger("tenantry.delivery")


class Claim(NamedTuple):
    """A partition that is ours, and what its former owner has left."""

    partition: int
    lease: str
    """The lease that it is claimed with."""
    last: Last
    """The checkpoint that was written to claim it."""
    names: Names


async def claim(
    env: Environment, partition: int, hint: asyncio.Event, wanted: Callable[[], bool]
) -> Claim | None:
    """Take a partition over; None where it is not `wanted` any more, or the lease is in doubt.

    `hint` is set where the former owner may have released it. Raises what NATS raises: then it may
    be tried again.
    """
    told = False
    while wanted() and env.leases.valid:
        hint.clear()
        found = await env.checkpoints.read(partition)
        if not found.at and await upgrade.pending(env.bus, env.service.name, partition):
            if not told:
                service = env.service.name
                log.warning("waits for the tenants worker", service=service, partition=partition)
                told = True
            await asyncio.sleep(_UPGRADE_POLL)
            continue
        owner = found.record.owner
        if owner not in ("", LEFT, env.leases.id) and await env.leases.exists(owner):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timing.CLAIM_POLL):
                    await hint.wait()
            continue
        if (taken := await _take_over(env, partition, found)) is not None:
            return taken
    return None


async def _take_over(env: Environment, partition: int, found: Found) -> Claim | None:
    """Write ourselves into the checkpoint; None where another was quicker."""
    record, lease = found.record, env.leases.id
    names = filters.names_of(env.service, record)
    end = await restore_end(env.bus, record.read_to)
    if not lease or not env.leases.valid:
        return None
    since = found.at - record.age - timing.MARGIN
    mine = filters.claimed(env.service, record, names, owner=lease, end=end, since=since)
    if not names.newer:
        mine = msgspec.structs.replace(mine, open=_looked_at_anew(mine))
    revision = await env.checkpoints.claim(partition, mine, found.revision)
    if revision is None:
        return None
    clean = not record.owner
    say = log.debug if clean else log.warning
    say(
        "partition claimed",
        service=env.service.name,
        partition=partition,
        epoch=mine.epoch,
        clean=clean,
    )
    return Claim(partition, lease, Last(mine, revision), names)


def _looked_at_anew(record: Checkpoint) -> dict[str, Open]:
    """The rows, with those due at once that only waited for a version that knows their message."""
    return {
        name: msgspec.structs.replace(row, failed=0, retry_at=0.0, code="")
        if row.code == UnknownAction.code
        else row
        for name, row in record.open.items()
    }
