"""Fair queueing by virtual time over the tenants of a service, by weight and by work.

Each tenant has a queue of its own and a tag: the work it has caused, in seconds of running time
over its weight. A free slot goes to the waiting tenant whose tag would be lowest after one more of
its messages (self-clocked fair queueing, Golestani 1994). What runs counts while it runs: as what
its action takes on average, or as the time it runs already where that is more; in the end as what
it took. Who comes anew begins at the tag of who was served last (start-time fair queueing, Goyal
et al. 1996), so that nobody saves up time, and comes before those of this tag that waited already.
Nobody owes what was used while nobody waited.

While slots are free a message costs two look-ups and no order. With all slots taken a decision is
logarithmic in the tenants that wait; no other tenant is looked at. A tenant of which nothing is
here is forgotten as soon as the others have come past its tag.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush, heapreplace

from tenantry.fairness.tenant import Held, Place, Tenant
from tenantry.fairness.ticket import Ticket
from tenantry.fairness.waiting import Waiting
from tenantry.fairness.work import Work

_LATELY = 5.0
"""For how long a tenant that has been here keeps the room for it, seconds."""

_LOOKS = 8
"""How many tags that have grown meanwhile are put in order again in one decision, at most."""

_SPARE = 64
_RESTING = 4096
"""How many that are gone are remembered, at most, for what they have had more than others."""


class Scheduler:
    """Gives the `slots` of one service to tenants by weight, counted by work.

    Messages of the journal leave one slot in eight to requests, where there are as many, and one
    tenant leaves `headroom` slots to others who have been here lately.
    """

    def __init__(self, slots: int, *, headroom: int = 0) -> None:
        self.limit = slots
        """How many may run now; may be changed at any time, down to 1."""
        self.headroom = headroom
        self.running = 0
        self.work = Work()
        self.waiting = Waiting()
        self._stored_running = 0
        self._tenants: dict[str, Tenant] = {}
        self._spare: list[Tenant] = []
        """Some that were forgotten, to be used again: to make one costs as much as a message."""
        self._order: list[Place] = []
        self._ready = 0
        self._count = 0
        self._virtual = 0.0
        self._epoch = 0
        self._contended = False
        self._resting: list[tuple[float, int, Tenant]] = []
        self._parked: deque[Tenant] = deque()
        self._latest = ""
        self._mixed = -_LATELY
        """When a message came of another tenant than the one before."""

    # --- what comes and goes -------------------------------------------------------------------

    def enter(self, ticket: Ticket, now: float) -> bool:
        """Take a message; True where it runs at once, else it waits for `next`."""
        name = ticket.tenant
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = self._spare.pop() if self._spare else Tenant()
            tenant.name = name
        if name != self._latest:
            self._mixed = now if self._latest else self._mixed
            self._latest = name
        waits = bool(tenant.requests or tenant.stored)
        if not waits:
            tenant.weight, tenant.most = ticket.weight, ticket.concurrency
        ticket.entered = now
        if (
            self.running < self.limit
            and not self._ready
            and not waits
            and self._may(tenant, now)
            and (not ticket.stored or self._stored_running < self._stored_most())
        ):
            if self._contended:
                self._settle_all(tenant)
            self._begin(tenant, ticket, now)
            return True
        self._queue(tenant, ticket, now)
        return False

    def next(self, now: float) -> Ticket | None:
        """The message that gets a free slot, if there is one of both."""
        looks = _LOOKS
        order = self._order
        while order and self.running < self.limit:
            entry = order[0]
            tenant = entry.tenant
            if tenant.entry is not entry:
                heappop(order)
                continue
            if not self._may(tenant, now):
                self._unready(tenant)
                continue
            fresh = not entry.again
            key = tenant.key(now, fresh=fresh)
            if key > entry.key and looks and len(order) > 1:
                looks -= 1
                self._place(tenant, key, replace=True, fresh=fresh)
                continue
            ticket = self._first(tenant)
            if ticket is None:
                continue
            self._virtual = max(self._virtual, tenant.tag(now))
            self._begin(tenant, ticket, now)
            tenant.paced(now, ticket.entered)
            if tenant.waits:
                self._place(tenant, tenant.key(now), replace=order[0] is entry)
            else:
                self._unready(tenant)
            self._rest_over()
            return ticket
        return None

    def leave(self, ticket: Ticket, now: float, *, ran: bool = True) -> None:
        """A message that had a slot has ended; unless it `ran`, it counts for nothing."""
        tenant = self._tenants[ticket.tenant]
        ticket.state = "over"
        took = now - ticket.began if ran else 0.0
        self.running -= 1
        tenant.ended(ticket, took)
        if ran:
            self.work.add(ticket.action, took)
        if ticket.stored:
            self._stored_running -= 1
            self._unpark(now)
        if tenant.waits:
            if tenant.entry is None:
                if not tenant.parked:
                    self._make_ready(tenant, now)
            else:
                fresh = not tenant.entry.again
                if (key := tenant.key(now, fresh=fresh)) < tenant.entry.key:
                    self._place(tenant, key, fresh=fresh)
        elif not tenant.running:
            self._rest(tenant)

    def withdraw(self, ticket: Ticket) -> None:
        """A message that waits is not wanted any more. Costs as much as its own tenant waits."""
        tenant = self._tenants[ticket.tenant]
        queue = tenant.stored if ticket.stored else tenant.requests
        if queue[-1] is ticket:
            queue.pop()
        else:
            queue.remove(ticket)
        self._withdrawn(tenant, ticket)

    def shed(self, *, since: float, below: int | None = None) -> Ticket | None:
        """Withdraw a request for others to be served in time, of the lowest weight that waits.

        Only one that came before `since`, and only of a weight lower than `below`. Of a few tenants
        it takes the one with the longest queue.
        """
        for name in self.waiting.candidates(below):
            tenant = self._tenants[name]
            ticket = tenant.requests[0]
            if ticket.entered < since:
                tenant.requests.popleft()
                self._withdrawn(tenant, ticket)
                return ticket
        return None

    @property
    def waits(self) -> bool:
        """Whether `next` may have something."""
        return bool(self._order)

    @property
    def full(self) -> bool:
        """Whether no slot is free but those that are left to other tenants, or to requests."""
        return (
            self.running >= self.limit - self.headroom
            or self._stored_running >= self._stored_most()
        )

    # --- reading -------------------------------------------------------------------------------

    def held(self, tenant: str) -> Held:
        """What runs and what waits of a tenant."""
        found = self._tenants.get(tenant)
        if found is None:
            return Held(0, 0)
        return Held(found.running, len(found.requests) + len(found.stored))

    def requests(self, tenant: str) -> int:
        """How many requests of a tenant wait."""
        found = self._tenants.get(tenant)
        return len(found.requests) if found is not None else 0

    def drained(self, tenant: str, now: float) -> float:
        """Seconds until what waits of a tenant will have begun, at the pace measured."""
        found = self._tenants.get(tenant)
        if found is None or not found.requests:
            return 0.0
        since = now - max(found.served, found.requests[0].entered)
        return len(found.requests) * max(found.pace, since)

    def tenants(self) -> dict[str, Held]:
        """Of all of whom something is here."""
        every = {name: self.held(name) for name in self._tenants}
        return {name: held for name, held in every.items() if any(held)}

    def __len__(self) -> int:
        """How many tenants are remembered."""
        return len(self._tenants)

    # --- inside --------------------------------------------------------------------------------

    def _stored_most(self) -> int:
        return self.limit - self.limit // 8 if self.limit >= 8 else max(1, self.limit - 1)

    def _may(self, tenant: Tenant, now: float) -> bool:
        """Whether the tenant may have one slot more."""
        running = tenant.running
        if tenant.most and running >= tenant.most:
            return False
        room = self.limit - self.headroom
        return running < room or running < 1 or now - self._mixed >= _LATELY

    def _begin(self, tenant: Tenant, ticket: Ticket, now: float) -> None:
        ticket.state = "running"
        ticket.began = now
        ticket.cost = cost = self.work.of(ticket.action)
        self.running += 1
        tenant.running += 1
        tenant.load += cost
        tenant.starts += now
        if ticket.stored:
            self._stored_running += 1

    def _queue(self, tenant: Tenant, ticket: Ticket, now: float) -> None:
        ticket.state = "waiting"
        self._contended = True
        if not tenant.waits:
            tenant.served = 0.0
        (tenant.stored if ticket.stored else tenant.requests).append(ticket)
        if not ticket.stored:
            self.waiting.add(tenant.name, tenant.weight)
        if tenant.entry is None:
            self._make_ready(tenant, now)

    def _withdrawn(self, tenant: Tenant, ticket: Ticket) -> None:
        ticket.state = "over"
        if not ticket.stored:
            self.waiting.remove(tenant.name, tenant.weight)
        if not tenant.waits:
            if tenant.entry is not None:
                self._unready(tenant)
            if not tenant.running:
                self._rest(tenant)

    def _first(self, tenant: Tenant) -> Ticket | None:
        """The tenant's next message, by turns of both kinds; None where it has to be parked."""
        may_store = bool(tenant.stored) and self._stored_running < self._stored_most()
        if tenant.requests and not (may_store and not tenant.stored_last):
            tenant.stored_last = False
            self.waiting.remove(tenant.name, tenant.weight)
            return tenant.requests.popleft()
        if may_store:
            tenant.stored_last = True
            return tenant.stored.popleft()
        self._unready(tenant)
        tenant.parked = True
        self._parked.append(tenant)
        return None

    def _unpark(self, now: float) -> None:
        """There may be a slot again for one that waits with messages of the journal alone."""
        while self._parked:
            tenant = self._parked.popleft()
            tenant.parked = False
            if tenant.stored:
                if tenant.entry is None:
                    self._place(tenant, tenant.key(now))
                    return
            elif not tenant.waits and not tenant.running:
                self._rest(tenant)

    def _make_ready(self, tenant: Tenant, now: float) -> None:
        """A tenant may get a slot again: it begins no lower than where the others are."""
        if tenant.epoch != self._epoch:
            tenant.epoch = self._epoch
            tenant.base = self._virtual
        tag = tenant.tag(now)
        if tag < self._virtual:
            tenant.base += self._virtual - tag
        self._place(tenant, tenant.key(now, fresh=True), fresh=True)

    def _place(
        self, tenant: Tenant, key: float, *, replace: bool = False, fresh: bool = False
    ) -> None:
        """Give a tenant its place in the order, instead of the former one where it has one.

        One that has not waited before (`fresh`) comes first among equals.
        """
        if tenant.entry is None:
            self._ready += 1
        self._count += 1
        tenant.entry = entry = Place(key, not fresh, self._count, tenant)
        order = self._order
        if replace:
            heapreplace(order, entry)
            return
        heappush(order, entry)
        if len(order) > 4 * self._ready + 64:  # former places of those that wait
            order[:] = [each for each in order if each.tenant.entry is each]
            heapify(order)

    def _unready(self, tenant: Tenant) -> None:
        tenant.entry = None
        self._ready -= 1
        if not self._ready:
            self._order.clear()

    def _rest(self, tenant: Tenant) -> None:
        """Nothing of the tenant is here: forget it, unless it has had more than the others."""
        if tenant.epoch == self._epoch and self._contended and tenant.base > self._virtual:
            self._count += 1
            heappush(self._resting, (tenant.base, self._count, tenant))
            if len(self._resting) > _RESTING:
                self._forget(heappop(self._resting)[2])
        else:
            self._forget(tenant)

    def _rest_over(self) -> None:
        for _ in range(2):  # more than one can have come since
            if not self._resting or self._resting[0][0] > self._virtual:
                return
            tenant = heappop(self._resting)[2]
            if tenant.base <= self._virtual:  # else it has been here again
                self._forget(tenant)

    def _settle_all(self, begins: Tenant) -> None:
        """Slots are free and nobody waits for one: nobody owes anything any more."""
        self._contended = False
        self._epoch += 1
        for _, _, tenant in self._resting:
            if tenant is not begins:
                self._forget(tenant)
        self._resting.clear()

    def _forget(self, tenant: Tenant) -> None:
        idle = not tenant.running and not tenant.waits
        if idle and not tenant.parked and self._tenants.get(tenant.name) is tenant:
            del self._tenants[tenant.name]
            if len(self._spare) < _SPARE:
                tenant.epoch, tenant.pace, tenant.mean = -1, 0.0, 0.0
                self._spare.append(tenant)
