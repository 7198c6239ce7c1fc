"""Names that nothing knows: an error, where an empty answer would hide a slip of the pen."""

from __future__ import annotations

from tenantry import catalogue, subjects
from tenantry.bus import Bucket, Bus
from tenantry.errors import NotFound
from tenantry.messages import Tenant
from tenantry.service.service import RESERVED


async def check_tenant(bus: Bus, tenant: str) -> None:
    """Raise :class:`NotFound` for a tenant that never was."""
    if await Bucket(bus, "tenants", Tenant).get(tenant) is None:
        raise NotFound(f"no tenant {tenant!r}", hint="see `tenantry tenants list`")


async def check_service(bus: Bus, service: str) -> None:
    """Raise :class:`NotFound` for a service that is not in the catalogue.

    The platform's own are never there, and always known.
    """
    if service not in RESERVED:
        await catalogue.newest(bus, service)


async def check_action(bus: Bus, name: str) -> None:
    """Raise :class:`NotFound` for a `<service>.<action>` that no version of it declares."""
    service, action = subjects.split_action(name)
    await check_service(bus, service)
    found = await catalogue.declarations(bus, service)
    if found and not any(action == known.name for each in found for known in each.actions):
        raise NotFound(
            f"{service} has no action {action}", hint=f"`tenantry services {service}` lists them"
        )
