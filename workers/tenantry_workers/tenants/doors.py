"""Revocations: the EDGE account's JWT, signed anew and pushed whenever a credential is revoked.

The truth is the tenants' records. Each replica pushes the whole list as it knows it, once at its
start and after each revocation it hears of, so that whoever pushes last has heard of all.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import Bus, Table
from tenantry.errors import Rejection, TenantryError, Unavailable
from tenantry.messages import Tenant
from tenantry.operator import OperatorHome

_PUSH = "$SYS.REQ.CLAIMS.UPDATE"
_RETRY = 1.0

log = structlog.get_logger("tenantry.tenants")


class Doors:
    """Keeps the server's list of revoked keys equal to the tenants' records."""

    def __init__(self, system: Bus, home: OperatorHome, tenants: Table[Tenant]) -> None:
        self._system = system
        self._home = home
        self._tenants = tenants
        self._pushed: dict[str, int] | None = None
        self._wake = asyncio.Event()
        self._done = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Push what is known, then after every change."""
        self._system.on_reconnect(self._forget)
        self._task = asyncio.create_task(self._run())
        await self.shut(self.wanted())

    async def stop(self) -> None:
        """Push no more."""
        await tasks.end(self._task)

    def changed(self, _name: str, _tenant: Tenant | None) -> None:
        """A tenant's record has changed."""
        self._wake.set()

    def wanted(self) -> dict[str, int]:
        """Every revoked key that has not expired by itself, with the second it was revoked."""
        now = time.time()
        return {
            credential.public_key: int(credential.revoked) + 1
            for tenant in self._tenants.rows.values()
            for credential in tenant.credentials
            if credential.revoked is not None
            and (credential.expires is None or credential.expires > now)
        }

    async def shut(self, keys: dict[str, int], *, timeout: float = 10.0) -> None:
        """Return when the server has all these keys; raises :class:`Unavailable`."""
        self._wake.set()
        try:
            async with asyncio.timeout(timeout), self._done:
                await self._done.wait_for(
                    lambda: self._pushed is not None and keys.keys() <= self._pushed.keys()
                )
        except TimeoutError:
            raise Unavailable(
                "the revocation is recorded but not in force yet; it will be", retry_after=5.0
            ) from None

    def _forget(self) -> None:
        self._pushed = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            wanted = self.wanted()
            if wanted != self._pushed:
                try:
                    await self._push(wanted)
                except (TenantryError, Rejection) as error:
                    log.error("revocations not pushed", why=str(error))
                    await asyncio.sleep(_RETRY)
                    continue
                async with self._done:
                    self._pushed = wanted
                    self._done.notify_all()
            await self._wake.wait()

    async def _push(self, revocations: dict[str, int]) -> None:
        jwt = self._home.edge_claims(revocations)
        self._home.validate_edge(jwt)
        answer = await self._system.call(_PUSH, jwt.encode())
        result = msgspec.json.decode(answer.data)
        if "error" in result:
            raise Unavailable(f"nats-server refuses the account: {result['error']}")
        log.info("revocations in force", keys=len(revocations))
