"""The catalogue, for those who ask once: which services there are, and what they declare."""

from __future__ import annotations

from tenantry import subjects
from tenantry.bus import Bucket, Bus, Table
from tenantry.errors import NotFound
from tenantry.messages import Declaration


async def declarations(bus: Bus, service: str = "*") -> list[Declaration]:
    """What all versions of a service declare, or of all services; a service's newest comes last."""
    table = Table(Bucket(bus, "catalogue", Declaration), filter=f"{service}.>")
    await table.start()
    await table.stop()
    return sorted(
        table.rows.values(), key=lambda each: (each.service, subjects.version_key(each.version))
    )


async def newest(bus: Bus, service: str) -> Declaration:
    """What the newest version of a service declares. Raises :class:`NotFound`."""
    found = await declarations(bus, service)
    if not found:
        raise unknown(service)
    return found[-1]


def unknown(service: str) -> NotFound:
    """What to say of a service that is not there."""
    return NotFound(f"no service {service} is known", hint="`tenantry services` lists them")
