"""The EDGE account's JWT: revoked keys, and the scopes of the tenants' credentials.

It is signed anew and pushed whenever one of them changes. The truth is the tenants' records and the
plans. Each replica pushes the whole as it knows it, once at its start and after each change that it
hears of, so that whoever pushes last has heard of all.

An account has to fit into one message, so what it says is bounded. The credentials of a plan share
a signing key by generations; once no credential of a generation is in force its key goes, and with
it all its revocations. Revocations of deleted tenants go when room is short, the oldest first:
routers refuse a deleted tenant anyway. When those of others fill most of the room, no more
credentials are issued until the tenants' signing key has been replaced. See
docs/decisions/0030-the-tenants-account-is-bounded.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import operator
import time
from typing import NamedTuple

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import Bus, Message, Subscription, Table
from tenantry.errors import Conflict, Rejection, SetupError, TenantryError, Unavailable
from tenantry.messages import Plan, Tenant
from tenantry.operator import OperatorHome, plant
from tenantry.operator.roles import SIGNING_KEYS
from tenantry.plans import subscriptions_of
from tenantry_workers.tenants.ledger import GENERATION, CredentialLedger

_PUSH = "$SYS.REQ.CLAIMS.UPDATE"
_RETRY = 1.0
_TICK = 10.0
"""An override that ends changes no record: seconds between looks."""

_REVOCATION = 100
_SCOPE = 600
_REST = 8_000
"""Bytes of one revoked key, of one scope and of all else in an account's JWT, at most."""

_FULL = 0.6
"""Part of the room that may be taken when credentials are issued: the rest is for revoking them."""

log = structlog.get_logger("tenantry.tenants")


class Wanted(NamedTuple):
    """What the server should know."""

    revoked: dict[str, int]
    """Every revoked key that would be good otherwise, with the second up to which it counts."""
    scopes: dict[str, int]
    """The subscriptions of a connection, by the scope of its credentials; 0 for any number."""


class Doors:
    """Keeps the server's account of the tenants equal to the records."""

    def __init__(
        self,
        bus: Bus,
        system: Bus,
        home: OperatorHome,
        tenants: Table[Tenant],
        plans: Table[Plan],
    ) -> None:
        self._bus = bus
        self._nudge: Subscription | None = None
        self._system = system
        self._home = home
        self._tenants = tenants
        self._plans = plans
        self.ledger = CredentialLedger()
        self.signers: frozenset[str] = frozenset()
        """The keys that tenants' credentials are signed with, as the server knows them."""
        self._pushed: Wanted | None = None
        self._edge = 0
        self._asked = 0
        self._settled = 0
        """What was asked up to this number is in force."""
        self._wake = asyncio.Event()
        self._done = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Push what is known, then after every change."""
        self._system.on_reconnect(self._forget)
        self._nudge = await self._bus.subscribe(SIGNING_KEYS, self._nudged)
        self._task = asyncio.create_task(self._run())
        await self.settled()

    async def stop(self) -> None:
        """Push no more."""
        if self._nudge is not None:
            await self._nudge.stop()
        await tasks.end(self._task)

    def noted(self, name: str, record: Tenant | None) -> None:
        """A tenant's record has changed."""
        self.ledger.note(name, record)
        self._wake.set()

    def changed(self, _name: str, _record: Plan | None) -> None:
        """A plan has changed."""
        self._wake.set()

    def about(self) -> dict[str, str]:
        """What an instance tells of it in `$SRV.INFO`: when the EDGE it has in force was made."""
        return {"edge": str(self._edge)}

    def wanted(self) -> Wanted:
        """Compute it from the records of now, at the same cost however many tenants there are."""
        now = time.time()
        self.ledger.expire(now)
        signers = self._signers()
        scopes = {
            place.scope: self._subscriptions(place.scope, now)
            for place in self.ledger.live
            if place.scope and place.signer in signers
        }
        generation = self._tenants.revision // GENERATION
        for plan in self._plans.rows.values():
            for number in (generation, generation + 1):  # before the first credential of it
                scopes[f"plan:{plan.name}#{number}"] = plan.subscriptions
        revoked, gone = self.ledger.revoked(scopes, signers)
        room = max(0, (self._room - self._taken(revoked, scopes)) // _REVOCATION)
        newest = heapq.nlargest(room, gone.items(), key=operator.itemgetter(1))
        return Wanted(revoked | dict(newest), scopes)

    def check_room(self) -> None:
        """Raise :class:`Conflict` where the account has no room for more credentials."""
        wanted = self.wanted()
        revoked, _ = self.ledger.revoked(wanted.scopes, self._signers())
        if self._taken(revoked, wanted.scopes) > self._room * _FULL:
            raise Conflict(
                f"{len(revoked):,} revoked credentials fill the tenants' account",
                hint="replace their signing key: `tenantry keys rotate tenants`, later `revoke`",
            )

    @property
    def _room(self) -> int:
        """Bytes of JSON that fit into the one message with the account's JWT, in base64."""
        return self._system.max_body * 3 // 4 - _REST

    def _taken(self, revoked: dict[str, int], scopes: dict[str, int]) -> int:
        return _REVOCATION * len(revoked) + _SCOPE * len(scopes) * (len(self._signers()) - 1)

    def _signers(self) -> set[str]:
        """The tenants' signing keys; an empty one stands for the first, in old records."""
        return {"", *(key.key for key in self._home.live_keys(plant.TENANT_KEY))}

    def _subscriptions(self, scope: str, now: float) -> int:
        holder = self._tenants.get(scope.partition(":")[2])
        return subscriptions_of(scope, holder, self._plans.rows, now)

    async def settled(self, *, timeout: float = 10.0) -> None:
        """Return when all that is known now is in force; raises :class:`Unavailable`."""
        self._asked += 1
        number = self._asked
        self._wake.set()
        try:
            async with asyncio.timeout(timeout), self._done:
                await self._done.wait_for(lambda: self._settled >= number)
        except TimeoutError:
            raise Unavailable(
                "the change is recorded but not in force at the server yet; it will be",
                retry_after=5.0,
            ) from None

    async def _nudged(self, _message: Message) -> None:
        self._wake.set()

    def _forget(self) -> None:
        self._pushed = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._reread()
            number, wanted = self._asked, self.wanted()
            if wanted != self._pushed:
                try:
                    await self._push(wanted)
                except (TenantryError, Rejection) as error:
                    log.error("account not pushed", why=str(error))
                    await asyncio.sleep(_RETRY)
                    continue
            async with self._done:
                self._pushed, self._settled = wanted, number
                self._done.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()

    def _reread(self) -> None:
        """`tenantry keys` may have changed the tenants' signing keys."""
        try:
            if self._home.refresh():
                self._pushed = None
        except SetupError as error:
            log.error("the operator's directory can't be read: going on as before", why=str(error))

    async def _push(self, wanted: Wanted) -> None:
        edge = self._home.account("edge").iat
        jwt = self._home.edge_claims(wanted.revoked, wanted.scopes)
        account = self._home.validate_edge(jwt)
        answer = await self._system.call(_PUSH, jwt.encode())
        result = msgspec.json.decode(answer.data)
        if "error" in result:
            raise Unavailable(f"nats-server refuses the account: {result['error']}")
        self.signers = frozenset(scoped.key for scoped in account.signing_keys)
        self._edge = edge
        log.info("account in force", revoked=len(wanted.revoked), scopes=len(wanted.scopes))
