"""The control plane's own requests: `platform.<service>.<action>`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.cli.connection import Connection
from tenantry.errors import DeadlineExceeded, Unavailable
from tenantry.messages import Empty, ListTenants, Tenant, TenantPage, TenantState
from tenantry.wire import codec, problem

T = TypeVar("T")
TIMEOUT = 10.0


class Control:
    """Asks `platform.<service>.*`, by default the tenants worker."""

    def __init__(self, bus: Bus, service: str = "tenants") -> None:
        self._bus = bus
        self._service = service

    async def call(self, action: str, body: Any, type: type[T]) -> T:  # noqa: A002
        """Ask for `action` and return its answer; raises the rejection that it may be."""
        subject = subjects.platform(self._service, action)
        try:
            answer = await self._bus.call(subject, codec.encode(body), timeout=TIMEOUT)
        except (Unavailable, DeadlineExceeded) as error:
            error.hint = f"does the {self._service} worker run? ask `tenantry status`"
            raise
        if rejection := problem.load(answer.headers, answer.data):
            raise rejection
        return codec.Decoder(type)(answer.data)

    async def tenants(self, state: TenantState | None = None) -> list[Tenant]:
        """All tenants, in the order of their ids."""
        found: list[Tenant] = []
        after: str | None = ""
        while after is not None:
            page = await self.call("list", ListTenants(after=after, state=state), TenantPage)
            found += page.tenants
            after = page.next
        return found


@asynccontextmanager
async def control(at: Connection) -> AsyncIterator[Control]:
    """A connection to the control plane with the credentials of the role `control`."""
    async with await at.connect("control") as bus:
        yield Control(bus)


NOTHING = Empty()


async def ask(at: Connection, action: str, body: Any, type: type[T]) -> T:  # noqa: A002
    """One request to the tenants worker on a connection of its own."""
    async with control(at) as mesh:
        return await mesh.call(action, body, type)
