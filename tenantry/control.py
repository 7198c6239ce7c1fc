"""The control plane's requests (`platform.tenants.*`), as programs of an operator make them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.messages import (
    CreateTenant,
    IssueContext,
    IssueCredentials,
    RenewedContext,
    Tenant,
    TenantAnswer,
)
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tenantry.wire import codec, problem

T = TypeVar("T")


class Control:
    """A connection with the credentials of the role `control`."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    @classmethod
    async def connect(cls, servers: str | Sequence[str], *, creds: str | Path) -> Control:
        """Connect; raises :class:`~tenantry.errors.ConnectionFailed`."""
        return cls(await Bus.connect(servers, creds=creds, name="control", patience=5.0))

    async def call(self, action: str, body: Any, type: type[T], *, timeout: float = 15.0) -> T:  # noqa: A002
        """Ask `platform.tenants.<action>`; raises the rejection it is answered with."""
        answer = await self.bus.call(
            subjects.platform("tenants", action), codec.encode(body), timeout=timeout
        )
        if rejection := problem.load(answer.headers, answer.data):
            raise rejection
        return codec.Decoder(type)(answer.data)

    async def create(
        self, tenant: str, *, plan: str = "standard", key: KeyPair | None = None
    ) -> tuple[Tenant, str]:
        """Create a tenant; returns it and the text of its first credentials file.

        The key pair is made here: its secret half never crosses the wire. With a `key` of one's own
        it may be repeated when its outcome is not known.
        """
        key = key or KeyPair.generate(Kind.USER)
        ask = CreateTenant(id=tenant, plan=plan, public_key=key.public_key)
        answer = await self.call("create", ask, TenantAnswer)
        return answer.tenant, creds_files.render(answer.jwt or "", key)

    async def issue(
        self, tenant: str, *, name: str = "", expires: float | None = None
    ) -> tuple[Tenant, str]:
        """Issue further credentials; `expires` is in seconds since the epoch."""
        key = KeyPair.generate(Kind.USER)
        ask = IssueCredentials(id=tenant, public_key=key.public_key, name=name, expires=expires)
        answer = await self.call("issue_credentials", ask, TenantAnswer)
        return answer.tenant, creds_files.render(answer.jwt or "", key)

    async def issue_context(
        self, tenant: str, *, principal: str = "operator", roles: Sequence[str] = ()
    ) -> str:
        """A context for messages in a tenant's name: the value of the header `Tenant-Context`.

        It is valid for five minutes (:data:`tenantry.context.token.LIFETIME`). Raises
        :class:`~tenantry.errors.NotFound`, and :class:`~tenantry.errors.Conflict` for a tenant
        that is deleted.
        """
        ask = IssueContext(id=tenant, principal=principal, roles=tuple(roles))
        return (await self.call("issue_context", ask, RenewedContext)).token

    async def close(self) -> None:
        """Close the connection."""
        await self.bus.close()

    async def __aenter__(self) -> Control:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
