"""What one router knows and owes of each tenant's limits: pure bookkeeping, without I/O or clock.

A message is paid for in one of three ways. From the stock: what the store granted ahead. On credit:
it is admitted at once and charged with the next order, as long as what is not charged yet is small
and the store had plenty left when last asked. Else it is parked, and an order asks for exactly what
is parked. A refusal is remembered until there can be a message again, so a flood costs no orders.

docs/decisions/0017-leases.md says why, and how far off it can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tenantry_workers.router.limits.account import Account, Line, Parked
from tenantry_workers.router.limits.bucket import ROUNDING, Bucket
from tenantry_workers.router.limits.counters import Counters
from tenantry_workers.router.limits.local import take_share
from tenantry_workers.router.limits.meter import Decision, Level, Meter

_AWAY_RETRY = 1.0
"""What a sender is told to wait where a meter fails closed, seconds."""


class Entry(NamedTuple):
    """What an order says of one meter."""

    line: Line
    charge: float
    age: float
    """For how long the charge has been owed, seconds, on average."""
    want: int


class Order(NamedTuple):
    """What the store is asked for one tenant."""

    account: Account
    entries: list[Entry]
    sent: float


class Answer(NamedTuple):
    """What the store says of one meter."""

    granted: int
    room: float
    wait: float
    """Seconds."""


class Ledger:
    """All tenants. `due` is told of an account that has something to order, and how urgently."""

    def __init__(self, due: Callable[[Account, bool], None], counters: Counters) -> None:
        self.accounts: dict[str, Account] = {}
        self.routers = 1
        """How many routers share the limits, this one among them."""
        self.away = False
        self._outage = 0
        self._due = due
        self._counters = counters
        self._waiting: dict[Account, None] = {}
        """Those with parked messages."""
        self._owing: dict[Account, None] = {}
        """Those to be settled when the store is back."""

    def account(self, tenant: str) -> Account:
        """The account of a tenant, perhaps a new one."""
        account = self.accounts.get(tenant)
        if account is None:
            account = self.accounts[tenant] = Account(tenant)
        return account

    def take(self, tenant: str, meters: Sequence[Meter], now: float) -> Decision | None:
        """Decide at once, or None where the store has to be asked."""
        if self.away:
            return self.share(tenant, meters, now)
        account = self.account(tenant)
        if account.parked:
            return None
        if len(meters) == 1 and account.due:
            line = account.line(meters[0])
            left = line.spare(now, self.routers)
            # What most messages are, without the loops: one more on credit, no charge due sooner.
            if left >= 0 and line.spent * 2 + 2 < line.cap:
                line.spent += 1
                line.spent_at += now
                self._counters.credit += 1
                self._counters.decisions["allowed", line.meter.name] += 1
                return Decision(True, line.meter, int(left))
        return self._decide(account, meters, now)

    def park(self, account: Account, parked: Parked) -> None:
        """Decide it with the next answer of the store."""
        account.parked.append(parked)
        self._waiting[account] = None
        self._counters.parked += 1
        if not account.flying:
            self._due(account, True)

    def _decide(
        self, account: Account, meters: Sequence[Meter], now: float, *, final: bool = False
    ) -> Decision | None:
        """`final`: the store has been asked for this message, what it lacks now is refused."""
        lines = [account.line(meter) for meter in meters]
        refused, free, unsure = None, now, False
        shadowed: tuple[str, ...] = ()
        for line in lines:
            if line.stock:
                continue
            if line.meter.shadow:
                if line.estimate(now) < 1:
                    shadowed += (line.meter.name,)
            elif now < line.blocked:
                refused, free = line.meter, max(free, line.free)
            elif not line.trusts(now, self.routers):
                if final:
                    refused, free = line.meter, max(free, line.free, now + 1e-3)
                unsure = True
        if refused is not None:
            return self._counted(Decision(False, refused, 0, free - now, shadowed=shadowed))
        if unsure:
            return None
        return self._counted(self._pay(account, lines, now, shadowed))

    def _pay(
        self, account: Account, lines: list[Line], now: float, shadowed: tuple[str, ...]
    ) -> Decision:
        left, tightest, urgent = math.inf, lines[0].meter, False
        for line in lines:
            if line.stock:
                line.stock -= 1
            elif line.meter.name not in shadowed:
                line.spent += 1
                line.spent_at += now
                self._counters.credit += 1
                urgent = urgent or line.spent * 2 >= line.cap
            if not line.meter.shadow and (room := line.estimate(now) + line.stock) < left:
                left, tightest = room, line.meter
        if not account.flying and (urgent or not account.due):
            self._due(account, urgent)
        remaining = max(0, math.floor(left + 1e-3)) if left < math.inf else 0
        return Decision(True, tightest, remaining, shadowed=shadowed)

    def _counted(self, decision: Decision) -> Decision:
        verdict = "allowed" if decision.allowed else "away" if decision.away else "refused"
        self._counters.decisions[verdict, decision.meter.name] += 1
        for name in decision.shadowed:
            self._counters.decisions["shadowed", name] += 1
        return decision

    def level(self, tenant: str, meter: Meter, now: float) -> Level:
        """What is left of a meter: of this router's share while the store is away."""
        account = self.accounts.get(tenant)
        line = account.lines.get(meter.name) if account is not None else None
        if not self.away:
            return Level(float(meter.burst), shared=True) if line is None else line.level(now)
        part = max(1.0, meter.burst / self.routers)
        if line is None:
            return Level(part, shared=False)
        if line.share is None or line.outage != self._outage:
            used = max(0.0, meter.burst - line.estimate(now)) / self.routers
        else:
            used = line.share.level(now)
        return Level(max(0.0, part - used), shared=False)

    # --- orders --------------------------------------------------------------------------------

    def order(self, account: Account, now: float) -> Order | None:
        """What to ask of the store for this tenant; it must be applied or lost afterwards."""
        account.due = False
        if account.flying:
            return None
        wants: dict[str, int] = {}
        for parked in account.parked:
            parked.asked = True
            for meter in parked.meters:
                if not meter.shadow:
                    account.line(meter)
                    wants[meter.name] = wants.get(meter.name, 0) + 1
        entries = []
        for name, line in account.lines.items():
            want = max(0, wants.get(name, 0) - line.stock)
            charge = line.spent
            if line.stock and name not in wants:
                charge -= line.stock
                self._counters.returned += line.stock
                line.stock = 0
            if charge or want:
                age = max(0.0, now - line.spent_at / line.spent) if line.spent else 0.0
                entries.append(Entry(line, charge, age, want))
                line.flying, line.spent, line.spent_at = max(0.0, charge), 0.0, 0.0
        if not entries:
            return None
        account.flying = True
        return Order(account, entries, now)

    def apply(self, order: Order, answers: Sequence[Answer], now: float, *, late: bool) -> None:
        """Take the store's answers, and decide what was parked for them."""
        order.account.flying = False
        for (line, *_), answer in zip(order.entries, answers, strict=True):
            line.flying = 0.0
            line.room, line.at = answer.room, order.sent
            line.stock += answer.granted
            self._counters.leased += answer.granted
            # From when it was sent: never later than the store's own clock would say. What a
            # sender is told counts from now, so that it is never too early.
            line.blocked = order.sent + answer.wait if answer.wait else 0.0
            line.free = now + answer.wait
        if late:
            for parked in order.account.parked:
                parked.asked = False
        if not self.away:
            self.settle(order.account, now)

    def lose(self, order: Order) -> None:
        """No answer: what was to be charged is charged again, for it may not have arrived."""
        order.account.flying = False
        for line, charge, age, _ in order.entries:
            line.flying = 0.0
            line.spent += max(0.0, charge)
            line.spent_at += max(0.0, charge) * (order.sent - age)
        self._owing[order.account] = None

    def settle(self, account: Account, now: float) -> None:
        """Decide what can be decided of what is parked, in order; order for the rest."""
        queue = account.parked
        while queue:
            parked = queue[0]
            decision = self._decide(account, parked.meters, now, final=parked.asked)
            if decision is None:
                break
            queue.popleft()
            parked.done = True
            parked.resume(decision)
        if queue:
            self._due(account, True)
            return
        self._waiting.pop(account, None)
        lines = account.lines.values()
        if any(line.stock or line.spent for line in lines):
            self._due(account, any(line.spent * 2 >= line.cap for line in lines))

    # --- while the store is away ---------------------------------------------------------------

    def share(self, tenant: str, meters: Sequence[Meter], now: float) -> Decision:
        """Decide by this router's share."""
        return self._counted(self._by_share(self.account(tenant), meters, now))

    def leave(self, now: float) -> None:
        """From now on decide by this router's share."""
        self.away = True
        self._outage += 1
        for account in self._waiting:
            while account.parked:
                parked = account.parked.popleft()
                parked.done = True
                parked.resume(self._counted(self._by_share(account, parked.meters, now)))
        self._waiting.clear()

    def come_back(self, now: float) -> None:
        """The store is there again: owe it what was admitted meanwhile."""
        self.away = False
        for account in self._owing:
            for line in account.lines.values():
                if line.outage == self._outage and line.share is not None:
                    # What the share began with is the store's own, which has leaked there too.
                    rest = max(0.0, line.start - (now - line.since) * line.share.rate)
                    owed = line.share.level(now) - rest
                    if owed > ROUNDING:
                        line.spent += owed
                        line.spent_at += owed * now
                line.share = None
            self._due(account, True)
        self._owing.clear()

    def _by_share(self, account: Account, meters: Sequence[Meter], now: float) -> Decision:
        closed = [meter for meter in meters if meter.fail_closed and not meter.shadow]
        if closed:
            return Decision(False, closed[-1], 0, _AWAY_RETRY, away=True)
        routers = self.routers
        self._owing[account] = None
        return take_share(
            [self._share(account.line(meter), now, routers) for meter in meters],
            meters,
            now,
            routers,
        )

    def _share(self, line: Line, now: float, routers: int) -> Bucket:
        if line.share is None or line.outage != self._outage:
            line.outage, line.since = self._outage, now
            line.start = max(0.0, line.meter.burst - line.estimate(now)) / routers
            line.share = Bucket(line.start, now, line.meter.rate / routers)
        return line.share

    def forget(self, tenants: Sequence[str], now: float) -> None:
        """Drop those of these tenants that are idle."""
        for tenant in tenants:
            account = self.accounts.get(tenant)
            if account is None or account.parked or account.flying or account.due:
                continue
            if account not in self._owing and all(
                line.idle(now) for line in account.lines.values()
            ):
                del self.accounts[tenant]
