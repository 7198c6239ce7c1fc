"""Committing a handled message: its state, events and commands count together, and once.

One record is the commit. Where one value is all that a message has written, that value is the
record, by the fence it carries. Else it is a redo record, from which every effect is made, and made
again after a crash. See docs/decisions/0028-state-that-counts-once.md.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

import structlog

from tenantry.context.context import Context, Staged
from tenantry.context.fence import Fence
from tenantry.context.latest import Seen
from tenantry.context.state import Write, late, redo_key
from tenantry.errors import (
    Conflict,
    DeadlineExceeded,
    JetStreamError,
    LaneLost,
    Rejection,
    TooLarge,
    Unavailable,
)
from tenantry.runtime import redo as redos
from tenantry.runtime.effects import TRANSIENT, Effects
from tenantry.runtime.outbox import Outbox, handed_on
from tenantry.runtime.redo import Redo, Slot
from tenantry.runtime.values import Values

_AT_ONCE = 256
"""How many values are proven at once."""

_PAUSE = 0.05
_LONGEST = 5.0
"""First and longest pause between two tries to make a committed message's effects, seconds."""

log = structlog.get_logger("tenantry.dispatch")


class Rerun(Exception):
    """The handler has to run again on fresh values.

    A request has changed what it had read, or a replica that lags behind has given it an old value.
    """


class _Refused(Unavailable):
    """The bucket has refused a write: it is full, for example."""


class _Begun(NamedTuple):
    """A commit that has begun."""

    fence: int
    key: str


class Commit:
    """Makes what the handlers of one service leave count."""

    def __init__(self, outbox: Outbox, service: str, values: Values) -> None:
        self.bus = outbox.bus
        self.service = service
        self._outbox = outbox
        self.values = values
        self.cut_off: dict[Slot, _Begun] = {}
        """Commits whose outcome nobody waits for any more. Usually empty: :meth:`resume` clears it.

        There is none of a commit that is still running.
        """

    async def run(self, context: Context, staged: Sequence[Staged]) -> None:
        """Commit what a handler has left that has succeeded.

        Raises :class:`Rerun` where the handler has to run again on fresh values,
        :class:`Superseded` for a message that must not count, :class:`TooLarge` and
        :class:`Unavailable` where nothing was committed. A commit whose outcome is unknown is asked
        about until NATS answers, so this may take as long as NATS is away.

        A message of an unordered handler counts at least once: with no place in the order, nobody
        can tell whether it was committed before.
        """
        writes, fence = context.writes(), context.fence
        if not writes and not staged:
            return
        await fence.ours()
        fence.committing = True
        try:
            if fence.value is not None:
                await self._prove(context, writes, staged)
            if not writes:
                await self._outbox.publish(context, staged)
            elif fence.value is None:
                await self._unordered(context, writes, staged)
            elif staged or len(writes) > 1:
                await self._several(context, fence.value, writes, staged)
            else:
                await self._single(context, fence.value, writes[0])
        finally:
            fence.committing = False

    async def resume(self, tenant: str, fence: Fence) -> bool:
        """Find out about a commit of this tenant that was cut off; True if it is this message's.

        Then the message counts, and its handler must not run again. A message without an order
        comes neither before nor after that commit, so it leaves it alone.
        """
        slot = Slot(tenant, fence.generation)
        begun = self.cut_off.get(slot)
        if begun is None or fence.value is None:
            return False
        record = await self.values.current_until(begun.key, self.service, fence)
        committed = Seen.of(record).fence == begun.fence
        if record is not None and committed and begun.key == self._key(slot):
            work = self._apply(redos.decode(begun.key, record.body), fence)
            await self._guarded(slot, begun, work)
        self.cut_off.pop(slot, None)
        return committed and begun.fence == fence.value

    async def finish(self, tenant: str, generation: int, at_least: int) -> int:
        """Make the effects of the last redo record once more; returns its fence, 0 for none.

        A record with a fence below `at_least` is left alone: its message was settled with all its
        effects, and the journal knows repeats of events for two minutes only. Events that can't be
        published any more, those of a deleted tenant, are dropped. Raises :class:`Unavailable`
        where not all could be done.

        Where the bucket is replicated, the record is written anew first, as it is: so it was the
        last one, and no former owner can write another.
        """
        key = self._key(Slot(tenant, generation))
        record = await self.values.current(key, self.service)
        if record is None or record.deleted:
            return 0
        redo = redos.decode(key, record.body)
        if redo.fence >= at_least:
            effects = Effects(redo, self.values, self._outbox)
            try:
                await effects.make()
            except JetStreamError as error:
                raise _refused(error) from None
            if effects.refused is not None:
                log.error(
                    "events dropped", tenant=tenant, fence=redo.fence, why=str(effects.refused)
                )
        return redo.fence

    # --- the three ways ------------------------------------------------------------------------

    async def _single(self, context: Context, fence: int, write: Write) -> None:
        """Commit one value: it is the record."""
        self._check_size(f"the value {write.key}", write.body or b"")
        begun = _Begun(fence, write.key)
        work = self._record(context.fence, begun, write.body, write)
        await self._guarded(Slot(context.tenant, context.fence.generation), begun, work)

    async def _several(
        self, context: Context, fence: int, writes: Sequence[Write], staged: Sequence[Staged]
    ) -> None:
        """Commit a redo record, then make its effects."""
        slot = Slot(context.tenant, context.fence.generation)
        redo = Redo(
            fence=fence,
            # The one that the message came with: only that one can be renewed again later.
            token=context.token,
            expires=context.claims.expires,
            trace=handed_on(context),
            writes={write.key: write.body for write in writes},
            events=self._outbox.parcels(context, staged),
        )
        body = redos.encode(redo)
        self._check_size("the state and events of one message", body)
        if staged:
            await self._outbox.refresh(context)
        for write in writes:
            known = self.values.known(write.key)
            if write.seen is not None and (known is None or known.revision < write.seen.revision):
                self.values.bucket.remember(write.key, write.seen)
        begun = _Begun(fence, self._key(slot))
        await self._guarded(slot, begun, self._redo(context.fence, begun, redo, body))

    async def _redo(self, fence: Fence, begun: _Begun, redo: Redo, body: bytes) -> None:
        if not await self._record(fence, begun, body):
            # Perhaps another run of this message has written it: what it says is what counts.
            record = await self.values.current_until(begun.key, self.service, fence)
            redo = redos.decode(begun.key, record.body if record is not None else b"")
            if redo.fence != begun.fence:
                raise late()
        await self._apply(redo, fence)

    async def _unordered(
        self, context: Context, writes: Iterable[Write], staged: Sequence[Staged]
    ) -> None:
        """Write one value after another, then publish: there is no record of it."""
        for write in writes:
            over = write.seen
            while True:
                over = over or await self.values.look(write.key)
                await context.fence.ours()
                try:
                    await self.values.put(write.key, write.body, over, over.fence)
                    break
                except Conflict:
                    if write.read:
                        raise Rerun from None
                    over = None
                except JetStreamError as error:
                    raise _refused(error) from None
        if staged:
            await self._outbox.publish(context, staged)

    # --- what was read -------------------------------------------------------------------------

    async def _prove(
        self, context: Context, writes: Sequence[Write], staged: Sequence[Staged]
    ) -> None:
        """Prove that the handler has seen all that former owners wrote; raises :class:`Rerun`.

        What this owner has written since it claimed the partition is known. Any other key that the
        handler has looked at is written anew, just as it was read. One value that is the whole
        commit needs no proof: its own compare-and-set is one. With one replica every read is
        current.
        """
        looked = dict(context.looked())
        if len(writes) == 1 and not staged and writes[0].read:
            looked.pop(writes[0].key, None)
        if not looked or not await self.values.bucket.is_replicated(self.service):
            return
        fence, is_proven = context.fence, self.values.bucket.is_proven
        unproven = [
            (key, record)
            for key, record in looked.items()
            if not is_proven(key, record.revision if record is not None else 0, fence.claim)
        ]
        while unproven:
            work = (self.values.prove(*each, fence) for each in unproven[:_AT_ONCE])
            results = await asyncio.gather(*work, return_exceptions=True)
            for error in results:
                if isinstance(error, JetStreamError):
                    raise _refused(error) from None
                if isinstance(error, BaseException):
                    raise error
            if not all(results):
                raise Rerun
            del unproven[:_AT_ONCE]

    # --- the record ----------------------------------------------------------------------------

    async def _guarded(self, slot: Slot, begun: _Begun, work: Coroutine[Any, Any, Any]) -> None:
        """Do this part of a commit; remember it for :meth:`resume` where it is cut off."""
        try:
            await work
        except (Rejection, Rerun) as error:
            if isinstance(error, LaneLost):
                self.cut_off[slot] = begun
            raise
        except BaseException:
            self.cut_off[slot] = begun
            raise

    async def _record(
        self, fence: Fence, begun: _Begun, body: bytes | None, write: Write | None = None
    ) -> bool:
        """Write the record that is the commit; False where this message's was there already.

        A lost answer never lets the handler run again: the same record is written until it is
        known to be there.
        """
        key, own = begun.key, begun.fence
        over = (write.seen if write is not None else None) or self.values.known(key)
        for tried in itertools.count():
            if over is None:
                over = Seen.of(await self.values.read_until(key, fence))
            if over.fence == own:
                return False
            if over.fence > own:
                raise late()
            why = await self._attempt(begun, body, over, fence.claim)
            if why is None:
                return True
            there = Seen.of(await self.values.read_until(key, fence))
            if there.revision == over.revision:
                if isinstance(why, _Refused):
                    raise why
                # It is not there yet, or a replica of the bucket lags behind.
                await asyncio.sleep(min(_PAUSE * tried, _LONGEST))
            elif there.fence < own and write is not None and write.read:
                raise Rerun
            over = there
        raise AssertionError("unreachable")

    async def _attempt(
        self, begun: _Begun, body: bytes | None, over: Seen, claim: object | None
    ) -> Rejection | None:
        """Try once to write the record; returns why it may not be there."""
        try:
            await self.values.put(begun.key, body, over, begun.fence, claim)
        except JetStreamError as error:
            return _refused(error)
        except (Conflict, Unavailable, DeadlineExceeded) as why:
            return why
        return None

    async def _apply(self, redo: Redo, fence: Fence) -> None:
        """Make all effects, however long it takes; raises :class:`LaneLost` meanwhile.

        Raises also why events can't be published, once everything else is done.
        """
        effects, pause = Effects(redo, self.values, self._outbox, fence.claim), _PAUSE
        while True:
            await fence.ours()
            try:
                await effects.make()
                break
            except TRANSIENT as error:
                log.warning("committed, but not done yet", fence=redo.fence, why=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        if effects.refused is not None:
            raise effects.refused

    # --- small ---------------------------------------------------------------------------------

    def _key(self, slot: Slot) -> str:
        return redo_key(slot.tenant, self.service, slot.generation)

    def _check_size(self, what: str, body: bytes) -> None:
        limit = self.bus.max_body
        if len(body) > limit:
            raise TooLarge(f"{what} have {len(body):,} bytes, at most {limit:,}")


def _refused(error: JetStreamError) -> _Refused:
    return _Refused(f"the state refuses: {error.message}", retry_after=5.0)
