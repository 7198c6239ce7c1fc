"""`stats.tenants`: each instance tells what it has counted by tenant, when an operator asks.

A subject without a queue group, so that all instances answer. Only the role `control` may ask: what
a tenant does is nobody else's business.
"""

from __future__ import annotations

from collections.abc import Callable

from tenantry.bus import Bus, Message, Subscription
from tenantry.errors import Rejection
from tenantry.messages import RateLevel, Tallies, TallyAsk
from tenantry.operator.roles import TALLIES
from tenantry.runtime.tallies import TallyBook
from tenantry.wire import codec, problem

_decode = codec.Decoder(TallyAsk)


class Telling:
    """Answers for one book of one instance; `levels` tells what is left of a tenant's rates."""

    def __init__(
        self,
        bus: Bus,
        service: str,
        instance: str,
        book: TallyBook,
        levels: Callable[[str], tuple[RateLevel, ...]] | None = None,
    ) -> None:
        self._bus = bus
        self._service = service
        self._instance = instance
        self._book = book
        self._levels = levels
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Listen."""
        self._subscription = await self._bus.subscribe(TALLIES, self._answer)

    async def stop(self) -> None:
        """Answer no more."""
        if self._subscription is not None:
            await self._subscription.stop()

    async def _answer(self, message: Message) -> None:
        try:
            ask = _decode(message.data or b"{}")
        except Rejection as rejection:
            fields, body = problem.dump(rejection, "")
            await self._bus.answer(message, body, headers=fields)
            return
        book = self._book
        found = book.of(ask.tenants) if ask.tenants else await book.first(ask.by, ask.limit)
        told = Tallies(
            service=self._service,
            instance=self._instance,
            known=len(book),
            tenants=tuple(found),
            levels=self._told(ask) if ask.levels else {},
        )
        await self._bus.answer(message, codec.encode(told))

    def _told(self, ask: TallyAsk) -> dict[str, tuple[RateLevel, ...]]:
        if self._levels is None:
            return {}
        return {name: self._levels(name) for name in ask.tenants}
