"""Asking the tenants worker, with the hints that help at a terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import zip_longest
from typing import Any, TypeVar

from tenantry.cli.connection import Connection
from tenantry.control import Control
from tenantry.errors import DeadlineExceeded, Unavailable
from tenantry.messages import ListTenants, Tenant, TenantPage, TenantState

T = TypeVar("T")


@asynccontextmanager
async def control(at: Connection) -> AsyncIterator[Control]:
    """A connection to the control plane with the credentials of the role `control`."""
    async with await at.connect("control") as bus:
        try:
            yield Control(bus)
        except (Unavailable, DeadlineExceeded) as error:
            error.hint = error.hint or "does the tenants worker run? ask `tenantry status`"
            raise


async def ask(at: Connection, action: str, body: Any, type: type[T]) -> T:  # noqa: A002
    """One request on a connection of its own."""
    async with control(at) as mesh:
        return await mesh.call(action, body, type)


async def all_tenants(
    at: Connection, state: TenantState | None = None
) -> list[tuple[Tenant, int | None]]:
    """All tenants, in the order of their ids, with how many of their credentials are in force.

    None: an older tenants worker does not tell.
    """
    found: list[tuple[Tenant, int | None]] = []
    after: str | None = ""
    async with control(at) as mesh:
        while after is not None:
            page = await mesh.call("list", ListTenants(after=after, state=state), TenantPage)
            found += zip_longest(page.tenants, page.credentials)
            after = page.next
    return found
