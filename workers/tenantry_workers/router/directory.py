"""Who and what there is, in memory: tenants, plans, actions; kept current by watches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tenantry.bus import Bucket, Bus, Message, Table
from tenantry.errors import TenantSuspended, TenantUnknown
from tenantry.messages import Declaration, Kind, Override, Plan
from tenantry.messages.tenants import TenantState
from tenantry.operator.roles import DISCONNECTS
from tenantry.plans import effective
from tenantry.runtime import registry
from tenantry.runtime.members import Members
from tenantry.subjects import is_version, version_key
from tenantry.wire.codec import Decoder

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Known(NamedTuple):
    """An action as the router needs it."""

    kind: Kind
    public: bool
    timeout: float
    live: bool


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """What of a tenant's record says whether it may send, and how much."""

    plan: str
    state: TenantState = "active"
    override: Override | None = None


class _Enrolments(Bucket[Enrolment]):
    """The bucket `tenants`, of which all who are alike share one object in memory."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus, "tenants", Enrolment)
        decode, alike = self.decode, dict[tuple[str, str], Enrolment]()

        def shared(body: Buffer | str) -> Enrolment:
            found = decode(body)
            if found.override is not None:
                return found
            return alike.setdefault((found.plan, found.state), found)

        self.decode = shared


class _Client(msgspec.Struct, frozen=True):
    name: str = ""


class _Disconnect(msgspec.Struct, frozen=True):
    client: _Client


_decode_disconnect = Decoder(_Disconnect)


class Directory:
    """Look-ups that cost a dictionary access, however many tenants there are."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.actions: dict[str, Known] = {}
        self.routers = 1
        """How many routers live, this one among them."""
        self.tenants = Table(_Enrolments(bus))
        self.plans = Table(Bucket(bus, "plans", Plan))
        self._declared = Table(Bucket(bus, "catalogue", Declaration), changed=self._redeclared)
        self._members = Members(bus, changed=self._index)
        self._special: dict[str, tuple[Plan, Override, bool, Plan]] = {}

    async def start(self) -> None:
        """Load everything, then follow the changes."""
        await self.tenants.start()
        await self.plans.start()
        await self._declared.start()
        await self._members.start()
        await self._ask_who_lives()
        self._disconnects = await self._bus.subscribe(DISCONNECTS, self._on_disconnect)

    async def stop(self) -> None:
        """Follow no more."""
        for table in (self.tenants, self.plans, self._declared):
            await table.stop()
        await self._members.stop()
        await self._disconnects.stop()

    def tenant(self, name: str) -> tuple[Enrolment, Plan]:
        """What the tenant has, and its plan; raises the rejection where it may not send."""
        tenant = self.tenants.get(name)
        if tenant is None or tenant.state == "deleted":
            raise TenantUnknown("no such tenant", hint="ask who runs this service")
        if tenant.state == "suspended":
            raise TenantSuspended("the tenant is suspended", hint="ask who runs this service")
        plan = self.plan_of(name, tenant)
        if plan is None:
            raise TenantUnknown(f"the tenant's plan {tenant.plan} does not exist")
        return tenant, plan

    def plan_of(self, name: str, tenant: Enrolment) -> Plan | None:
        """The plan with the tenant's own limits; None for a plan that does not exist."""
        plan = self.plans.get(tenant.plan)
        if plan is None or tenant.override is None:
            return plan
        return self._overridden(name, plan, tenant.override)

    def _overridden(self, name: str, plan: Plan, override: Override) -> Plan:
        """The plan with the tenant's own limits; the same object as long as neither changes."""
        known = self._special.get(name)
        now = time.time()
        over = override.until is not None and override.until <= now
        if known is None or known[0] is not plan or known[1] is not override or known[2] != over:
            known = (plan, override, over, effective(plan, override, now))
            self._special[name] = known
        return known[3]

    # --- what runs -----------------------------------------------------------------------------

    async def _ask_who_lives(self) -> None:
        for alive in await registry.living(self._bus, wait=0.5):
            self._members.hear(alive)

    async def _on_disconnect(self, message: Message) -> None:
        """NATS itself says that a worker's connection is gone, sooner than its silence does."""
        self._members.disconnected(_decode_disconnect(message.data).client.name)

    def _redeclared(self, key: str, _declaration: Declaration | None) -> None:
        self._index(key.partition(".")[0])

    def _index(self, service: str) -> None:
        """Work out the actions of one service anew.

        They are those of the versions that live; of the newest one where none does. An instance
        lives also when its declaration has not come here yet, which takes another way.
        """
        if service == "router":
            self.routers = max(1, len(self._members.instances(service)))
        declared = {
            declaration.version: declaration
            for declaration in self._declared.rows.values()
            if declaration.service == service and is_version(declaration.version)
        }
        live = self._members.versions(service) & declared.keys()
        lives = bool(self._members.instances(service))
        chosen = live or set(sorted(declared, key=version_key)[-1:])
        fresh = {
            f"{service}.{action.name}": Known(action.kind, action.public, action.timeout, lives)
            for version in sorted(chosen, key=version_key)
            for action in declared[version].actions
        }
        for name in [name for name in self.actions if name.startswith(f"{service}.")]:
            if name not in fresh:
                del self.actions[name]
        self.actions.update(fresh)
