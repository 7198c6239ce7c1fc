"""Setting up what the mesh keeps in JetStream: the journal, the buckets, the shipped plans."""

from __future__ import annotations

import contextlib

from tenantry.bus import Bucket, Bus
from tenantry.bus.jetstream import STREAM_NOT_FOUND, api, ensure_stream
from tenantry.errors import Conflict, JetStreamError, SetupError
from tenantry.messages import SHIPPED_PLANS, Plan
from tenantry.runtime.config import MeshConfig
from tenantry.streams import (
    BUCKETS,
    RESTORING,
    audit_config,
    bucket_config,
    dead_config,
    journal_config,
    schedules_config,
    timers_config,
)


async def provision(bus: Bus, config: MeshConfig) -> None:
    """Create what is missing and bring the rest to `config`; safe to repeat and to race.

    Raises :class:`SetupError` where a restore was interrupted, and something may be missing.
    """
    await _refuse_unfinished(bus)
    for name, history in BUCKETS.items():
        await ensure_stream(bus, bucket_config(name, history=history, replicas=config.replicas))
    await ensure_stream(bus, journal_config(config.journal))
    await ensure_stream(bus, dead_config(config.dead))
    await ensure_stream(bus, schedules_config(config.schedules, config.journal))
    await ensure_stream(bus, timers_config(config.schedules))
    await ensure_stream(bus, audit_config(config.audit))
    plans = Bucket(bus, "plans", Plan)
    for plan in SHIPPED_PLANS:
        with contextlib.suppress(Conflict):  # an operator's own version of it stays
            await plans.create(plan.name, plan)


async def _refuse_unfinished(bus: Bus) -> None:
    try:
        await api(bus, f"STREAM.INFO.{RESTORING}")
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
    else:
        raise SetupError(
            "a restore was interrupted, or is at work: something may be missing",
            hint="run `tenantry restore` again, with no worker running",
        )
