"""Setting up what the mesh keeps in JetStream: the journal, the buckets, the shipped plans."""

from __future__ import annotations

import contextlib

from tenantry.bus import Bucket, Bus
from tenantry.bus.jetstream import ensure_stream
from tenantry.bus.kv import bucket_config
from tenantry.errors import Conflict
from tenantry.messages import SHIPPED_PLANS, Plan
from tenantry.runtime.config import MeshConfig
from tenantry.runtime.journal import stream_config

HISTORY = {"tenants": 64, "plans": 64, "keys": 8, "catalogue": 1, "state": 8}
"""The buckets, and how many revisions each key keeps."""


async def provision(bus: Bus, config: MeshConfig) -> None:
    """Create what is missing and bring the rest to `config`; safe to repeat and to race."""
    for name, history in HISTORY.items():
        await ensure_stream(bus, bucket_config(name, history=history, replicas=config.replicas))
    await ensure_stream(bus, stream_config(config.journal))
    plans = Bucket(bus, "plans", Plan)
    for plan in SHIPPED_PLANS:
        with contextlib.suppress(Conflict):  # an operator's own version of it stays
            await plans.create(plan.name, plan)
