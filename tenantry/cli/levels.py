"""What is left of a tenant's rates now, put together from what each router knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from tenantry.bus import Bus
from tenantry.messages import RateLevel, Tallies, TallyAsk
from tenantry.operator.roles import TALLIES
from tenantry.wire import codec

_WAIT = 0.3

_decode = msgspec.json.Decoder(Tallies).decode


async def of(bus: Bus, tenant: str) -> dict[str, float]:
    """Messages that could come at once, by scope; nothing where no router answers.

    `bus` needs the role `control`. Raises :class:`~tenantry.errors.Unavailable`.
    """
    told = []
    ask = codec.encode(TallyAsk(tenants=(tenant,), levels=True))
    for answer in await bus.gather(TALLIES, ask, wait=_WAIT):
        try:
            told.append(_decode(answer.data).levels.get(tenant, ()))
        except msgspec.MsgspecError:
            continue  # a version that knows less than we ask
    return together(told)


def together(told: Iterable[Iterable[RateLevel]]) -> dict[str, float]:
    """The levels over all routers.

    What they share they all look at, and who has heard last sees least; own parts add up. While
    only some of them reach what they share, those are the ones to go by.
    """
    shared, parts = dict[str, float](), defaultdict[str, float](float)
    for levels in told:
        for level in levels:
            if level.shared:
                shared[level.scope] = min(level.left, shared.get(level.scope, level.left))
            else:
                parts[level.scope] += level.left
    return {**parts, **shared}
