"""Runs what a lane lets begin, and tells it what became of each message."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import time
from collections.abc import Callable

import structlog

from tenantry.context.fence import Fence
from tenantry.delivery import settlement
from tenantry.delivery.environment import Environment, Item
from tenantry.delivery.hold import Hold
from tenantry.delivery.lane import Begun, Lane, Queue
from tenantry.delivery.settlement import DeadLetter, Decision, Outcome, RetryAfter
from tenantry.errors import HandlerFailed, JetStreamError, Rejection, UnknownAction
from tenantry.service.retry import Retry
from tenantry.wire import trace

GRACE = 15.0
"""Seconds beyond a handler's timeout for its clean-up and for what it publishes."""

_CUT = 2.0
"""How long a handler that was cancelled may take to end, seconds."""

_AGAIN = 0.5

_LIFE = "tenants."
"""The events of a tenant's own life are handled also while it is suspended."""

log = structlog.get_logger("tenantry.delivery")


class _Run:
    """A message in a handler's hands."""

    __slots__ = ("begun", "fence", "left", "overdue", "queue", "since", "task")

    def __init__(
        self, queue: Queue[Item], begun: Begun[Item], since: float, task: asyncio.Task[None]
    ) -> None:
        self.queue = queue
        self.begun = begun
        self.since = since
        """By `time.monotonic`."""
        self.task = task
        self.fence: Fence | None = None
        self.overdue = math.inf
        """When it is left to itself, by `time.monotonic`."""
        self.left = False


class Serving:
    """Runs the messages of one partition.

    `ended` is called when a queue has got further, `noted` when the checkpoint has something new.
    """

    def __init__(
        self,
        environment: Environment,
        lane: Lane[Item],
        hold: Hold,
        *,
        since: float,
        newer: bool,
        ended: Callable[[Queue[Item]], None],
        noted: Callable[[], None],
    ) -> None:
        self._env = environment
        self._handlers = environment.service.durable
        self._lane = lane
        self._hold = hold
        self._since = since
        self._newer = newer
        self._ended = ended
        self._noted = noted
        self._runs: dict[Queue[Item], _Run] = {}
        self._marks: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._nobody = contextvars.copy_context()
        """The context in which tasks begin: never that of another message that runs."""
        self._due = False
        self.idle = asyncio.Event()
        """Set where the last message may have ended."""

    @property
    def age(self) -> float:
        """How long the oldest message that runs has been running, seconds."""
        now = time.monotonic()
        return now - min((run.since for run in self._runs.values()), default=now)

    # --- beginning -----------------------------------------------------------------------------

    def pump_soon(self) -> None:
        """Run what may run, once what is coming in just now has come."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Run what may run."""
        self._due = False
        lane = self._lane
        while self._hold.ours() and (queue := lane.ready()) is not None:
            task = self._loop.create_task(self._serve(queue), context=self._nobody.copy())
            self._keep(task)

    async def _serve(self, queue: Queue[Item]) -> None:
        """Run the messages of a queue, one after another."""
        lane, task = self._lane, asyncio.current_task()
        assert task is not None  # noqa: S101  (it runs in one)
        try:
            while self._hold.ours():
                begun = lane.begin(queue)
                if begun is None:
                    return
                run = self._runs[queue] = _Run(queue, begun, time.monotonic(), task)
                if not await self._handle(run):
                    return
                self._runs.pop(queue, None)
                self._noted()
                if queue.side is not None:
                    self._ended(queue)
            lane.pause(queue)
        finally:
            if not self._runs:
                self.idle.set()

    async def _handle(self, run: _Run) -> bool:
        """Run one message and do what is decided; False where that is not ours to do any more."""
        try:
            decision = await self._try(run)
        except asyncio.CancelledError:
            if run.left or self._lane.leaving:
                return False
            run.task.uncancel()
            decision = self._failed(run.begun, "the handler has cancelled itself")
        except Exception:
            log.exception("message not handled", **about(run.begun.message, run.queue.tenant))
            decision = settlement.Release()
        if run.left or self._hold.lost():
            return False
        if decision is settlement.SETTLE:
            self._lane.settle(run.queue, run.begun.seq)
        else:
            await self._follow(run.queue, run.begun, decision)
        return True

    async def _try(self, run: _Run) -> Decision:
        """Run one message, and decide what becomes of it."""
        seq, (message, delivery), failed, lost = run.begun
        queue = run.queue
        name = message.subject.split(".", 3)[3]
        if queue.tenant in self._env.suspended.rows and not name.startswith(_LIFE):
            return settlement.SUSPENDED
        handler = self._handlers.get(name)
        if handler is None:
            return self._unknown(message.subject, failed)
        if lost and (why := settlement.given_up(handler.retry, failed, lost)):
            return DeadLetter(why)
        tenant = queue.tenant
        if seq <= self._lane.window and handler.ordered and await self._mark(tenant, seq) >= seq:
            return settlement.SETTLE
        cursor = self._env.cursors.of(tenant)
        run.fence = Fence(
            self._hold.lost,
            self._hold.wait,
            seq=seq,
            epoch=cursor.epoch,
            generation=cursor.generation,
            ordered=handler.ordered,
            claim=self._hold.claim,
        )
        run.overdue = run.since + handler.timeout + GRACE
        if failed or lost:
            delivery = delivery._replace(attempt=failed + lost + 1)
        result = await self._env.attempts.run(handler, message, delivery, run.fence)
        if result.outcome is Outcome.DONE:
            return settlement.SETTLE
        return settlement.decide(result, handler.retry, failed)

    def _unknown(self, subject: str, failed: int) -> Decision:
        """Decide on a message that this version has no handler for."""
        service = self._env.service
        why = UnknownAction(f"{service.name} {service.version} does not know {subject}")
        result = settlement.Result(Outcome.UNKNOWN, why)
        return settlement.decide(result, _ONCE, failed, newer=self._newer)

    async def _mark(self, tenant: str, seq: int) -> int:
        """How far the tenant had come under the former owner, who may have died of it."""
        mark = self._marks.get(tenant)
        while mark is None:
            try:
                mark = await self._env.attempts.settled_up_to(
                    tenant, self._env.cursors.of(tenant), first=seq, since=self._since
                )
            except (Rejection, JetStreamError) as error:
                if self._hold.lost():
                    return 0
                log.warning("tenant waits", tenant=tenant, why=str(error))
                await asyncio.sleep(_AGAIN)
        self._marks[tenant] = mark
        return mark

    # --- what comes of it ----------------------------------------------------------------------

    def _failed(self, begun: Begun[Item], what: str) -> Decision:
        handler = self._handlers[begun.message.message.subject.split(".", 3)[3]]
        tenant = begun.message.message.subject.split(".", 3)[2]
        log.error("handler failed", **about(begun.message, tenant), why=what)
        result = settlement.Result(Outcome.FAILED, HandlerFailed(f"{handler.name}: {what}"))
        return settlement.decide(result, handler.retry, begun.failed)

    async def _follow(self, queue: Queue[Item], begun: Begun[Item], decision: Decision) -> None:
        """Do what was decided, where that is not simply to settle it."""
        if isinstance(decision, DeadLetter):
            if not await self._hold.wait():
                return
            decision = await self._write_letter(queue, begun, decision)
        if decision is settlement.SETTLE:
            self._lane.settle(queue, begun.seq)
        elif isinstance(decision, RetryAfter):
            self._retry(queue, begun, decision)
        else:  # nothing is decided, and the partition is ours all the same
            self._lane.postpone(queue, begun.seq, retry_at=time.time() + _AGAIN, code="")

    def _retry(self, queue: Queue[Item], begun: Begun[Item], decision: RetryAfter) -> None:
        now = time.time()
        retry_at, code = now + decision.pause, decision.why.code
        if decision.counts:
            self._lane.fail(queue, begun.seq, retry_at=retry_at, now=now, code=code)
        else:
            self._lane.postpone(queue, begun.seq, retry_at=retry_at, code=code)
        log.warning(
            "will retry",
            **about(begun.message, queue.tenant),
            attempt=begun.failed + begun.lost + 1,
            after=round(decision.pause, 2),
            code=code,
        )

    async def _write_letter(
        self, queue: Queue[Item], begun: Begun[Item], decision: DeadLetter
    ) -> Decision:
        message, delivery = begun.message
        delivery = delivery._replace(attempt=begun.failed + begun.lost + 1)
        side = queue.side
        first = side.first_failed if side is not None and begun.failed else 0.0
        try:
            await self._env.letters.write(message, delivery, decision.why, first)
        except Exception as error:  # noqa: BLE001  (whatever it is, its tenant must not stand still)
            log.error(
                "dead letter not written", **about(begun.message, queue.tenant), why=str(error)
            )
            return settlement.unwritten(decision)
        return settlement.SETTLE

    # --- the end -------------------------------------------------------------------------------

    def look_for_hung(self) -> None:
        """Leave handlers to themselves that ignore their end; nothing that they do counts."""
        now = time.monotonic()
        for run in [run for run in self._runs.values() if run.overdue < now]:
            if run.fence is not None and run.fence.committing:
                continue  # the handler has ended: it waits for NATS, for as long as it takes
            self._leave(run)
            decision = self._failed(run.begun, "it hangs and ignores its end")
            task = self._loop.create_task(self._after(run, decision), context=self._nobody.copy())
            self._keep(task)

    def drop(self, tenant: str, upto: int) -> None:
        """Messages of a tenant up to `upto` were erased: cut off what runs of them."""
        self._lane.drop(tenant, upto)
        for run in list(self._runs.values()):
            if run.queue.tenant == tenant and run.begun.seq <= upto:
                self._leave(run)
                run.task.cancel()
                self._lane.settle(run.queue, run.begun.seq)
                self._go_on(run.queue)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _after(self, run: _Run, decision: Decision) -> None:
        """Go on with a queue whose handler was left to itself."""
        await self._follow(run.queue, run.begun, decision)
        self._go_on(run.queue)

    def _go_on(self, queue: Queue[Item]) -> None:
        self._lane.pause(queue)
        self._noted()
        self._ended(queue)
        self.pump_soon()

    def _leave(self, run: _Run) -> None:
        run.left = True
        if run.fence is not None:
            self._env.attempts.abandon(run.fence)
        self._runs.pop(run.queue, None)

    async def finish(self, deadline: Callable[[], float]) -> bool:
        """Wait for what runs until `deadline()` (loop time); False: something was cut off."""
        while self._runs and not self._hold.lost():
            left = deadline() - self._loop.time()
            if left <= 0:
                break
            self.idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _AGAIN)):
                    await self.idle.wait()
        return not await self.cut_off()

    async def cut_off(self) -> bool:
        """End what still runs: nothing that it does counts. False: nothing did."""
        runs = list(self._runs.values())
        for run in runs:
            run.task.cancel()
        if runs:
            await asyncio.wait({run.task for run in runs}, timeout=_CUT)
        for run in runs:
            self._leave(run)
        return bool(runs)


_ONCE = Retry(tries=1)


def about(item: Item, tenant: str) -> dict[str, object]:
    """The fields of a log line about a stored message."""
    hop = trace.extract(item.message.headers)
    name = item.message.subject.split(".", 3)[3]
    found: dict[str, object] = {"action": name, "tenant": tenant, "seq": item.delivery.seq}
    return found if hop is None else {**found, "trace_id": hop.trace_id}
