"""`platform.tenants.*`: the control plane's requests about tenants."""

from __future__ import annotations

import time
from bisect import bisect
from itertools import islice

import msgspec

import tenantry
from tenantry import subjects
from tenantry.bus import Table
from tenantry.context.platform import PlatformContext
from tenantry.context.token import Mints, terms
from tenantry.errors import BadMessage, Conflict
from tenantry.messages import (
    EVENT_OF_CHANGE,
    CreateTenant,
    Credential,
    Empty,
    IssueContext,
    IssueCredentials,
    ListTenants,
    MessageDead,
    Plan,
    PlanList,
    QuotaExhausted,
    QuotaWarned,
    RenewedContext,
    RevokeCredentials,
    SetOverride,
    SetPlan,
    SuspendTenant,
    Tenant,
    TenantAnswer,
    TenantEvent,
    TenantPage,
    TenantRef,
)
from tenantry.operator import OperatorHome
from tenantry.operator.keys import Kind, is_public_key
from tenantry.plans import check, effective, in_force, limits_of, scope_of
from tenantry.service.service import Service
from tenantry_workers.tenants.doors import Doors
from tenantry_workers.tenants.ledger import GENERATION, Place, is_closed
from tenantry_workers.tenants.publisher import event_name
from tenantry_workers.tenants.store import (
    Change,
    TenantStore,
    key_taken,
    next_record,
    with_credential,
    without_credentials,
)


class TenantsService:
    """The handlers, over the store, the operator's keys and the doors."""

    def __init__(
        self,
        store: TenantStore,
        home: OperatorHome,
        doors: Doors,
        tenants: Table[Tenant],
        plans: Table[Plan],
        minter: Mints,
    ) -> None:
        self._store = store
        self._home = home
        self._doors = doors
        self._tenants = tenants
        self._plans = plans
        self._minter = minter

    def service(self) -> Service:
        """Declare the actions."""
        service = Service("tenants", version=tenantry.__version__, platform=True)
        for handler in (
            self.create,
            self.show,
            self.list,
            self.suspend,
            self.resume,
            self.set_plan,
            self.delete,
            self.issue_credentials,
            self.revoke_credentials,
            self.issue_context,
            self.plans,
            self.apply_plans,
            self.override,
        ):
            service.request(handler.__name__)(handler)
        kinds: list[type[TenantEvent]] = [MessageDead, QuotaWarned, QuotaExhausted]
        for kind in (*EVENT_OF_CHANGE.values(), *kinds):
            service.event(event_name(kind), kind)
        return service

    async def create(self, _ctx: PlatformContext, ask: CreateTenant) -> TenantAnswer:
        """Create a tenant; with a public key, issue its first credentials too.

        With the same plan and key it may be repeated, where the answer was lost.
        """
        if not subjects.is_tenant(ask.id):  # a pattern's `$` lets a final line feed pass
            raise BadMessage("this is no tenant id", path="$.id")
        _check_key(ask.public_key)
        await self._check_new(ask.public_key, ask.id)
        now = round(time.time(), 3)
        signer = self._home.tenant_key
        tenant = Tenant(id=ask.id, plan=ask.plan, created=now, updated=now)
        scope = self._scope(tenant, now)
        if ask.public_key:
            first = Credential(
                public_key=ask.public_key, name="first", issued=now, scope=scope, signer=signer
            )
            tenant = msgspec.structs.replace(tenant, credentials=(first,))
        try:
            created, revision = await self._store.create(tenant)
        except Conflict:
            created, revision = await self._store.get(ask.id), 0
            if not _is_repeat(created, ask):
                raise
        await self._tenants.reach(revision)
        jwt = None
        if ask.public_key is not None:
            await self._doors.settled()
            own = next(c for c in created.credentials if c.public_key == ask.public_key)
            jwt = self._home.tenant_jwt(
                ask.public_key, ask.id, name="first", scope=own.scope, signer=own.signer
            )
        return TenantAnswer(tenant=created, jwt=jwt)

    async def show(self, _ctx: PlatformContext, ask: TenantRef) -> Tenant:
        """One tenant."""
        return await self._store.get(ask.id)

    async def list(self, _ctx: PlatformContext, ask: ListTenants) -> TenantPage:
        """A page of tenants, in the order of their ids, with the number of their credentials."""
        names, now = self._doors.ledger.names, time.time()
        rows = (self._tenants.rows[name] for name in islice(names, bisect(names, ask.after), None))
        found = (each for each in rows if ask.state is None or each.state == ask.state)
        page = list(islice(found, ask.limit))
        return TenantPage(
            tenants=tuple(msgspec.structs.replace(each, credentials=()) for each in page),
            credentials=tuple(sum(in_force(c, now) for c in each.credentials) for each in page),
            next=page[-1].id if next(found, None) is not None else None,
        )

    async def suspend(self, _ctx: PlatformContext, ask: SuspendTenant) -> TenantAnswer:
        """Suspend a tenant: the router refuses its messages until it is resumed."""
        return await self._change(
            ask.id,
            lambda tenant: (
                None
                if tenant.state == "suspended"
                else next_record(tenant, "suspended", ask.reason, state="suspended")
            ),
        )

    async def resume(self, _ctx: PlatformContext, ask: TenantRef) -> TenantAnswer:
        """Let a suspended tenant send again."""
        return await self._change(
            ask.id,
            lambda tenant: (
                None if tenant.state == "active" else next_record(tenant, "resumed", state="active")
            ),
        )

    async def set_plan(self, _ctx: PlatformContext, ask: SetPlan) -> TenantAnswer:
        """Put a tenant on another plan."""
        await self._store.check_plan(ask.plan)
        return await self._change(
            ask.id,
            lambda tenant: (
                None
                if tenant.plan == ask.plan
                else next_record(tenant, "plan_changed", ask.plan, plan=ask.plan)
            ),
        )

    async def delete(self, _ctx: PlatformContext, ask: TenantRef) -> TenantAnswer:
        """Delete a tenant and revoke all its credentials. Its journal stays until erased."""

        def change(tenant: Tenant) -> Tenant:
            revoked = without_credentials(tenant, None) or tenant
            return next_record(revoked, "deleted", state="deleted")

        return await self._change(ask.id, change)

    async def issue_credentials(self, _ctx: PlatformContext, ask: IssueCredentials) -> TenantAnswer:
        """Sign credentials for a key pair that the asker has made."""
        if ask.expires is not None and ask.expires <= time.time():
            raise Conflict("the expiry lies in the past", hint="give seconds since the epoch")
        _check_key(ask.public_key)
        await self._check_new(ask.public_key, ask.id)
        issued, signer = round(time.time(), 3), self._home.tenant_key
        credential = Credential(
            public_key=ask.public_key,
            name=ask.name,
            issued=issued,
            expires=ask.expires,
            signer=signer,
        )

        def change(tenant: Tenant) -> Tenant:
            issued_in = msgspec.structs.replace(credential, scope=self._scope(tenant, issued))
            return with_credential(tenant, issued_in, self._is_void)

        tenant = (await self._change(ask.id, change)).tenant
        jwt = self._home.tenant_jwt(
            ask.public_key,
            ask.id,
            name=ask.name,
            expires=None if ask.expires is None else int(ask.expires),
            scope=next(c.scope for c in tenant.credentials if c.public_key == ask.public_key),
            signer=signer,
        )
        return TenantAnswer(tenant=tenant, jwt=jwt)

    async def revoke_credentials(
        self, _ctx: PlatformContext, ask: RevokeCredentials
    ) -> TenantAnswer:
        """Revoke one credential, or all: open connections are cut off."""
        return await self._change(
            ask.id, lambda tenant: without_credentials(tenant, ask.public_key)
        )

    async def issue_context(self, _ctx: PlatformContext, ask: IssueContext) -> RenewedContext:
        """Sign a context for what an operator does in a tenant's name, also a suspended one's."""
        tenant = await self._store.get(ask.id)
        if tenant.state == "deleted":
            raise Conflict(f"tenant {tenant.id} is deleted")
        plan = limits_of(tenant, self._plans.rows, time.time())
        return RenewedContext(
            token=self._minter.mint(
                tenant.id,
                tenant.plan,
                ask.principal,
                roles=ask.roles,
                **terms(plan),
            )
        )

    async def plans(self, _ctx: PlatformContext, _ask: Empty) -> PlanList:
        """The plans there are."""
        found = tuple(self._plans.rows[name] for name in sorted(self._plans.rows))
        return PlanList(plans=found, revision=self._plans.revision)

    async def apply_plans(self, _ctx: PlatformContext, ask: PlanList) -> PlanList:
        """Make or change plans; others stay. All of them are checked before one is written."""
        for number, plan in enumerate(ask.plans):
            try:
                check(plan)
                self._check_body(plan.max_body)
            except BadMessage as error:
                raise _at(error, f"$.plans[{number}]") from None
        revision = await self._store.write_plans(ask.plans)
        await self._plans.reach(revision)
        await self._doors.settled()
        return await self.plans(_ctx, Empty())

    async def override(self, _ctx: PlatformContext, ask: SetOverride) -> TenantAnswer:
        """Give one tenant other limits than its plan's, for a time or for good."""
        given = ask.override
        if given is not None:
            tenant = self._tenants.get(ask.id)
            plan = self._plans.get(tenant.plan) if tenant is not None else None
            check(effective(plan or Plan(name="any", max_body=0), given, 0.0))
            self._check_body(given.max_body or 0)
            if given.until is not None and given.until <= time.time():
                raise BadMessage("the end lies in the past", path="$.override.until")
        note = given.note if given is not None else ""
        return await self._change(
            ask.id,
            lambda tenant: (
                None
                if tenant.override == given
                else next_record(tenant, "limits_changed", note, override=given)
            ),
        )

    def _check_body(self, max_body: int) -> None:
        """Raise :class:`BadMessage` for a `max_body` (bytes) that NATS does not take."""
        most = self._store.largest_body
        if max_body > most:
            raise BadMessage(
                f"max_body {max_body} is more than NATS takes here, {most} bytes",
                hint="allow less, or raise max_payload in nats-server's configuration",
            )

    async def _check_new(self, public_key: str | None, name: str) -> None:
        """Raise :class:`Conflict` for a key that another tenant's record names.

        The server revokes keys, whoever's they are: with the one tenant's the other's would go.
        """
        if public_key is None:
            return
        await self._tenants.sync()
        owner = self._doors.ledger.owner(public_key)
        if owner not in ("", name):
            raise key_taken()
        self._doors.check_room()

    def _scope(self, tenant: Tenant, now: float) -> str:
        """The scope of new credentials: each generation of them has one of its own."""
        return scope_of(tenant, now, self._tenants.revision // GENERATION)

    def _is_void(self, credential: Credential) -> bool:
        """Tell whether nothing can ever sign it again: then no record needs to name it."""
        ledger, place = self._doors.ledger, Place(credential.signer, credential.scope)
        return place not in ledger.live and is_closed(place.scope, self._tenants.revision)

    async def _change(self, name: str, change: Change) -> TenantAnswer:
        tenant, revision = await self._store.change(name, change)
        await self._tenants.reach(revision)
        await self._doors.settled()
        return TenantAnswer(tenant=tenant)


def _check_key(public_key: str | None) -> None:
    """Before anything is written: a record must not name a key that nobody can have."""
    if public_key is not None and not is_public_key(public_key, Kind.USER):
        raise BadMessage("this is no public key of a user", path="$.public_key")


def _is_repeat(there: Tenant, ask: CreateTenant) -> bool:
    """Tell whether a tenant was created by this very request, whose answer was lost."""
    return (
        there.state == "active"
        and there.plan == ask.plan
        and any(c.public_key == ask.public_key and c.revoked is None for c in there.credentials)
    )


def _at(error: BadMessage, path: str) -> BadMessage:
    return BadMessage(error.message, hint=error.hint, path=path)
