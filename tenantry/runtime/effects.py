"""The effects of one committed message: its values and events, made from its redo record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tenantry.context.fence import EPOCH
from tenantry.errors import DeadlineExceeded, JetStreamError, Rejection, Unavailable
from tenantry.runtime.outbox import Outbox
from tenantry.runtime.redo import Redo
from tenantry.runtime.values import Values
from tenantry.wire import headers

TRANSIENT = (Unavailable, DeadlineExceeded, JetStreamError)
"""Errors after which the same effect may be possible later."""

_AT_ONCE = 256
"""How many values of one message are written at once."""


class Effects:
    """The effects left to make of one redo record. Each may be made any number of times."""

    def __init__(
        self, redo: Redo, values: Values, outbox: Outbox, claim: object | None = None
    ) -> None:
        self.redo = redo
        self._claim = claim
        self.refused: Rejection | None = None
        """Why the events that were left can never be published; then they are dropped."""
        self._values = values
        self._outbox = outbox
        self._writes = list(redo.writes.items())
        self._events = list(redo.events)

    async def make(self) -> None:
        """Make what is left, values beside events; raises one of :data:`TRANSIENT`."""
        if not self._events:
            await self._write()
        elif not self._writes:
            await self._publish()
        else:
            both = await asyncio.gather(self._write(), self._publish(), return_exceptions=True)
            _raise_first(both)

    async def _write(self) -> None:
        """Write the values: a later message's stays, a request's is written over."""
        fence = self.redo.fence
        if len(self._writes) == 1:
            await self._values.settle(*self._writes[0], fence, self._claim)
            self._writes.clear()
        while self._writes:
            batch = self._writes[:_AT_ONCE]
            work = (self._values.settle(key, body, fence, self._claim) for key, body in batch)
            _raise_first(await asyncio.gather(*work, return_exceptions=True))
            del self._writes[: len(batch)]

    async def _publish(self) -> None:
        redo, renewer = self.redo, self._outbox.renewer
        try:
            token = await renewer.renewed(redo.token, redo.fence % EPOCH, redo.expires)
            await self._outbox.send(self._events, {headers.CONTEXT: token, **redo.trace})
        except TRANSIENT:
            raise
        except Rejection as rejection:
            self.refused = rejection
            self._events.clear()


def _raise_first(results: Iterable[BaseException | None]) -> None:
    for error in results:
        if error is not None:
            raise error
