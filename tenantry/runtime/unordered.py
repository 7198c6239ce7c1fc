"""Messages that no order binds: one that fails holds up no other, not even of its own tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from tenantry.bus import Message
from tenantry.bus.jetstream import Delivery
from tenantry.runtime.attempts import Outcome, about
from tenantry.runtime.replaying import is_due
from tenantry.service.handler import Handler

if TYPE_CHECKING:
    from tenantry.runtime.lane import Lane

_WAITS = 2.0

log = structlog.get_logger("tenantry.lane")


class Unordered:
    """Handles them for a lane; NATS itself delivers one again after a pause."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def serve(self, tenant: str, message: Message, handler: Handler) -> None:
        """Handle one message once the lane is in order, and say what becomes of it."""
        lane, delivery = self._lane, Delivery.of(message)
        await lane.settled.wait()
        if not lane.is_free(handler, delivery.seq):
            lane.let_go(message)
            lane.tenants.hold(tenant, delivery.seq, message)
            return
        if not lane.ready():
            lane.let_go(message)
            return
        replay = lane.replays.of(tenant)
        if replay is not None and replay.generation is None and is_due(replay):
            await lane.give_back(message, _WAITS)  # the tenant's live messages wait
            return
        turn = lane.turn(delivery.seq, ordered=False, row=lane.cursors.of(tenant))
        outcome, why = await lane.attempts.run(handler, message, delivery, turn)
        if outcome is Outcome.DONE:
            await lane.settle(message)
        elif why is None:
            lane.let_go(message)
        elif outcome is Outcome.HOPELESS or delivery.attempt >= handler.retry.tries:
            if await lane.lay_down(message, why):
                await lane.settle(message)
            else:
                await lane.give_back(message, handler.retry.most)
        else:
            pause = handler.retry.pause(delivery.attempt)
            log.warning(
                "will retry",
                **about(message, delivery.seq),
                attempt=delivery.attempt,
                after=round(pause, 2),
                code=why.code,
            )
            await lane.give_back(message, pause)
