"""The tenants in their KV bucket, changed by compare-and-set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from tenantry import subjects
from tenantry.bus import Bucket, Bus, Entry
from tenantry.errors import Conflict, NotFound, Unavailable
from tenantry.messages import Credential, Plan, Tenant, TenantChange

_ATTEMPTS = 20
_MAX_CREDENTIALS = 100

Change = Callable[[Tenant], Tenant | None]
"""Makes the next record of a tenant, or None where there is nothing to change."""


class TenantStore:
    """Reads and changes tenants; each change is one revision, and so one event."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tenants = Bucket(bus, "tenants", Tenant)
        self._plans = Bucket(bus, "plans", Plan)

    @property
    def largest_body(self) -> int:
        """The largest body that NATS takes, bytes."""
        return self._bus.max_body

    async def create(self, tenant: Tenant) -> tuple[Tenant, int]:
        """Add a tenant; raises :class:`Conflict` where the id is, or was, in use."""
        await self.check_plan(tenant.plan)
        entry = await self._tenants.get(tenant.id)
        if entry is not None:
            raise _taken(entry.value)
        try:
            return tenant, await self._tenants.create(tenant.id, tenant)
        except Conflict:
            raise _taken(tenant) from None

    async def get(self, name: str) -> Tenant:
        """The tenant; raises :class:`NotFound`."""
        return (await self._entry(name)).value

    async def change(self, name: str, change: Change) -> tuple[Tenant, int]:
        """Apply `change` to the latest record; again where another was quicker.

        Returns the record and its revision, 0 where nothing was to change.
        """
        for _ in range(_ATTEMPTS):
            entry = await self._entry(name)
            if entry.value.state == "deleted":
                raise Conflict(f"tenant {name} is deleted")
            changed = change(entry.value)
            if changed is None:
                return entry.value, 0
            try:
                return changed, await self._tenants.update(name, changed, entry.revision)
            except Conflict:
                continue
        raise Unavailable(f"tenant {name} keeps changing", retry_after=1.0)

    async def write_plans(self, plans: Sequence[Plan]) -> int:
        """Write those that have changed; returns the last revision, 0 where none has."""
        last = 0
        for plan in plans:
            entry = await self._plans.get(plan.name)
            if entry is None or entry.value != plan:
                last = await self._plans.put(plan.name, plan)
        return last

    async def check_plan(self, name: str) -> None:
        """Raise :class:`NotFound` where there is no such plan."""
        if not subjects.is_name(name) or await self._plans.get(name) is None:
            raise NotFound(f"no plan {name!r}", hint="see `tenantry plans`")

    async def _entry(self, name: str) -> Entry[Tenant]:
        entry = await self._tenants.get(name) if subjects.is_tenant(name) else None
        if entry is None:
            raise NotFound(f"no tenant {name!r}", hint="see `tenantry tenants list`")
        return entry


def next_record(
    tenant: Tenant, change: TenantChange, subject: str = "", **fields: object
) -> Tenant:
    """The record after a change, which names the change for the event that follows."""
    return msgspec.structs.replace(
        tenant, change=change, subject=subject, updated=round(time.time(), 3), **fields
    )


def with_credential(
    tenant: Tenant, credential: Credential, is_void: Callable[[Credential], bool] = lambda _: False
) -> Tenant:
    """Add a credential; those that are over by themselves go, and revoked ones that are void."""
    now = time.time()
    kept = tuple(
        each
        for each in tenant.credentials
        if (each.expires is None or each.expires > now)
        and (each.revoked is None or not is_void(each))
    )
    if any(c.public_key == credential.public_key for c in kept):
        raise key_taken()
    live = sum(c.revoked is None for c in kept)
    if live >= _MAX_CREDENTIALS:
        raise Conflict(
            f"tenant {tenant.id} has {live} credentials",
            hint="revoke some, or issue them with an expiry",
        )
    return next_record(
        tenant, "credentials_issued", credential.public_key, credentials=(*kept, credential)
    )


def without_credentials(tenant: Tenant, public_key: str | None) -> Tenant | None:
    """Mark one credential, or all, as revoked; None where they are already."""
    now = round(time.time(), 3)
    keys = {c.public_key for c in tenant.credentials}
    if public_key is not None and public_key not in keys:
        raise NotFound(f"tenant {tenant.id} has no credentials {public_key}")
    chosen = keys if public_key is None else {public_key}
    revoked = tuple(
        msgspec.structs.replace(c, revoked=now)
        if c.public_key in chosen and c.revoked is None
        else c
        for c in tenant.credentials
    )
    if revoked == tenant.credentials:
        return None
    return next_record(tenant, "credentials_revoked", public_key or "", credentials=revoked)


def key_taken() -> Conflict:
    """What is said of a key that has credentials; not whose, for that may be another tenant."""
    return Conflict("this public key has credentials already", hint="make a new key pair")


def _taken(tenant: Tenant) -> Conflict:
    if tenant.state == "deleted":
        return Conflict(
            f"tenant {tenant.id} was deleted, and no id is given out again",
            hint="choose another id",
        )
    return Conflict(f"tenant {tenant.id} exists already", hint="choose another id")
