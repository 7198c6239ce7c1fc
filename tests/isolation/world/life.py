"""The life of the world: honest tenants at work, attackers among them, and things that break."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tenantry_workers.router import RouterWorker
from tenantry_workers.tenants import TenantsWorker
from tests.isolation.world import crew
from tests.isolation.world.attacks import Attacker
from tests.isolation.world.canary import Canaries
from tests.isolation.world.customer import Customer, Place
from tests.isolation.world.vault import ledger, vault
from tests.mesh import Mesh, eventually
from tests.servers import NatsBackend

_EVERY = 20
"""One tenant of so many is an attacker."""

_SETTLE = 60.0
"""Seconds until everything that was acknowledged must have had its effect."""


class World:
    """A mesh, its tenants and their secrets."""

    def __init__(self, backend: NatsBackend, folder: Path, tenants: int, seed: int) -> None:
        self.canaries = Canaries()
        self.customers: list[Customer] = []
        self.attempts: Counter[str] = Counter()
        self.crew_log = folder / "crew.log"
        self.mesh = Mesh(backend, folder)
        self._size = tenants
        self._random = random.Random(seed)
        self._backend = backend
        self._over = False
        self.mesh.start(TenantsWorker(self.mesh.options()))
        self._router = self.mesh.start(RouterWorker(self.mesh.options()))
        self.mesh.start(self.mesh.worker(vault, ledger))
        creds = self.mesh.home.service_creds(["vault", "ledger"])
        self._crew = crew.start(backend.url, creds, self.crew_log)

    @property
    def traces(self) -> dict[str, str]:
        """Whose trace is which."""
        return {each.trace: each.tenant for each in self.customers}

    @property
    def attackers(self) -> Sequence[Customer]:
        """Those whose credentials are in the wrong hands."""
        return self.customers[::_EVERY]

    @property
    def honest(self) -> list[Customer]:
        """All the others."""
        return [each for index, each in enumerate(self.customers) if index % _EVERY]

    async def live(self, seconds: float, *, leak: bool = False) -> None:
        """Found all tenants, let them work, attack and break things; then let all settle."""
        for number in range(self._size):
            name = f"world{number}"
            creds = (await self.mesh.tenant(name)).read_text()
            secret = self.canaries.make(name)
            self.customers.append(Customer(name, secret, Place(self.mesh.url, creds)))
        await eventually(self._served)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._end_after(seconds))
            group.create_task(self._faults(seconds))
            for customer in self.honest:
                group.create_task(self._work(customer))
            for customer in self.attackers:
                group.create_task(self._attack(customer))
        if leak:
            await self._leak()

    async def settled(self, customer: Customer) -> dict[str, object]:
        """All that the vault keeps of a tenant, once nothing is missing any more."""
        found: dict[str, object] = {}

        async def complete() -> bool:
            nonlocal found
            found = await customer.read() or found
            stored, followed = (set(found.get(name, ())) for name in ("stored", "followed"))  # type: ignore[call-overload]
            return set(customer.acknowledged) <= stored & followed

        await eventually(complete, within=_SETTLE, every=0.2)
        return found

    async def close(self) -> None:
        """End everything."""
        self._crew.kill()
        await asyncio.to_thread(self._crew.wait)
        for customer in self.customers:
            await customer.close()
        await asyncio.to_thread(self.mesh.close)

    # --- what goes on ------------------------------------------------------------------------

    async def _served(self) -> bool:
        return await self.customers[0].read() is not None

    async def _end_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._over = True

    async def _work(self, customer: Customer) -> None:
        """One of each kind of message, its secret in all of them; then more to store."""
        secret = customer.secret
        await customer.store(0)
        for action in ("keep", "poison", "fail", "later"):
            await customer.ask(f"vault.{action}", {"text": f"{secret}-{action}"}, msg_id=secret)
        number = 0
        while not self._over:
            number += 1
            await customer.store(number)
            await customer.ask("vault.keep", {"text": f"{secret}-{number}", "name": secret})
            await customer.read()
            await asyncio.sleep(self._random.uniform(0.5, 1.5))

    async def _attack(self, customer: Customer) -> None:
        while True:
            victim = self._random.choice(self.honest)
            attacker = Attacker(customer, victim.tenant, victim.trace)
            await attacker.everything()
            self.attempts += attacker.attempts
            if self._over:
                return

    async def _faults(self, seconds: float) -> None:
        """A router is replaced; the server, then a worker is killed."""
        await asyncio.sleep(seconds / 4)
        former, self._router = (
            self._router,
            await asyncio.to_thread(self.mesh.start, RouterWorker(self.mesh.options())),
        )
        await former.stop()
        self.mesh.running.remove(former)
        await asyncio.sleep(seconds / 4)
        await asyncio.to_thread(self._backend.kill)
        await asyncio.to_thread(self._backend.start)
        await asyncio.sleep(seconds / 4)
        self._crew.kill()

    async def _leak(self) -> None:
        """What must never be, to see that it would be found: one tenant gets another's secret."""
        one, other = self.honest[:2]
        await one.ask("vault.keep", {"text": f"{other.secret}-leaked"})
