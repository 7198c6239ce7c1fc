"""Logins that the servers have refused: whose credentials were shown, and what is wrong with them.

nats-server itself says only that it refused; the reason is worked out of the JWT that was shown.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec
import structlog

from tenantry.bus import Bus, Message, Subscription, Table
from tenantry.errors import BadMessage, SetupError
from tenantry.messages import SecurityKind, Tenant
from tenantry.operator import claims
from tenantry.operator.creds import tenant_among
from tenantry.operator.keys import Kind, is_public_key
from tenantry.operator.roles import LOGINS_REFUSED
from tenantry.plans import in_force
from tenantry.runtime.audit import Audit
from tenantry.wire.codec import Decoder
from tenantry_workers.tenants.doors import Doors

_GROUP = "tenants"
_MAX_JWT = 8192

log = structlog.get_logger("tenantry.tenants")


class _Server(msgspec.Struct, frozen=True):
    id: str


class _Client(msgspec.Struct, frozen=True):
    id: int
    host: str = ""
    jwt: str = ""


class _Refused(msgspec.Struct, frozen=True):
    server: _Server
    client: _Client


_decode = Decoder(_Refused)


class Finding(NamedTuple):
    """What is wrong with a login."""

    kind: SecurityKind
    why: str
    tenant: str = ""
    user: str = ""
    claimed: str = ""


class RefusedLogins:
    """Tells the audit of them; one replica hears of each."""

    def __init__(self, system: Bus, audit: Audit, doors: Doors, tenants: Table[Tenant]) -> None:
        self._system = system
        self._audit = audit
        self._doors = doors
        self._tenants = tenants
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Hear of all that happens from now on."""
        self._subscriptions.append(
            await self._system.subscribe(LOGINS_REFUSED, self._on_refused, queue=_GROUP)
        )

    async def stop(self) -> None:
        """Hear no more."""
        for subscription in self._subscriptions:
            await subscription.stop()

    async def _on_refused(self, message: Message) -> None:
        try:
            event = _decode(message.data)
        except BadMessage as error:
            log.warning("refused login unreadable", why=error.message)
            return
        found = self.judge(event.client.jwt)
        self._audit.refused(
            found.kind,
            tenant=found.tenant,
            user=found.user,
            claimed=found.claimed,
            host=event.client.host,
            connection=f"{event.server.id}:{event.client.id}",
            why=found.why,
        )

    def judge(self, jwt: str) -> Finding:
        """What a JWT is that did not let its bearer in."""
        if not jwt:
            return Finding("no_credentials", "no credentials of the mesh were shown")
        try:
            shown = claims.decode(jwt[:_MAX_JWT])
            user = claims.read(shown, claims.User)
        except SetupError:
            return Finding("forged_credentials", "what was shown is no user JWT")
        if shown.iss not in self._doors.signers:
            claimed = shown.sub if is_public_key(shown.sub, Kind.USER) else ""
            why = "they are signed by no key that tenants' credentials are signed with now"
            return Finding("forged_credentials", why, claimed=claimed)
        tenant = tenant_among(user.tags) or ""
        kind, why = self._genuine(tenant, shown)
        return Finding(kind, why, tenant=tenant, user=shown.sub)

    def _genuine(self, tenant: str, shown: claims.Claims) -> tuple[SecurityKind, str]:
        now, record = time.time(), self._tenants.get(tenant)
        known = record.credentials if record is not None else ()
        for credential in known:
            if credential.public_key == shown.sub and credential.revoked is not None:
                return "revoked_credentials", "they were revoked"
        if shown.exp and shown.exp <= now:
            return "expired_credentials", "they have expired"
        if not any(each.public_key == shown.sub and in_force(each, now) for each in known):
            return "refused_credentials", "there is no record of these credentials"
        return "refused_credentials", "whoever showed them does not have their seed"
