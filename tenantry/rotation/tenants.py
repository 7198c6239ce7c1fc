"""The tenants' signing key: whose credentials depend on one, and whether a change is in force."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from tenantry.bus import Bucket, Bus, Table
from tenantry.messages import Credential, Tenant
from tenantry.operator import OperatorHome, plant
from tenantry.operator.roles import SIGNING_KEYS
from tenantry.rotation.instances import Instance, Instances


class Voided(NamedTuple):
    """How many valid credentials a tenant has by one signing key."""

    tenant: str
    credentials: int


async def voided_by(bus: Bus, home: OperatorHome) -> dict[str, list[Voided]]:
    """What the loss of each tenants' signing key would void, by its public key."""
    table = Table(Bucket(bus, "tenants", Tenant))
    await table.start()
    try:
        rows = list(table.rows.values())
    finally:
        await table.stop()
    first = home.signing_keys(plant.TENANT_KEY)[0].key
    counts: dict[str, Counter[str]] = {}
    for tenant in rows:
        for credential in tenant.credentials:
            if tenant.state != "deleted" and _valid(credential):
                counts.setdefault(credential.signer or first, Counter())[tenant.id] += 1
    return {key: [Voided(*each) for each in sorted(count.items())] for key, count in counts.items()}


def _valid(credential: Credential) -> bool:
    expires = credential.expires
    return credential.revoked is None and (expires is None or expires > time.time())


async def in_force(bus: Bus, home: OperatorHome, *, within: float) -> list[Instance]:
    """Have the tenants workers put EDGE into force; those that have not after `within` seconds."""
    wanted = home.account("edge").iat
    await bus.publish(SIGNING_KEYS)
    await bus.flush()
    return await Instances(bus).behind(
        lambda each: (each.number("edge") or 0) >= wanted, within=within, service="tenants"
    )
