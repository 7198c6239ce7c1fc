"""The state of a partition in its owner's hands: events in, decisions out; no clock, no I/O.

A tenant's messages wait in a queue and run one after another; an unordered message has a queue of
its own. A queue whose message failed, or whose backlog would hold up the others, is sidelined: the
lane passes its messages over, and a reader of its own brings them, from its first unsettled one on.

    state of a queue | arrives    | caught up with  | settled      | failed    | nothing is left
    -----------------|------------|-----------------|--------------|-----------|----------------
    absent           | waits      | dropped         | -            | -         | -
    waits            | appended   | dropped         | -            | -         | -
    runs             | appended   | dropped         | next, absent | sidelined | -
    sidelined        | passed     | waits, in order | next         | pauses    | absent
    pauses           | passed     | refused         | next         | pauses    | -

What the owner must not forget is in the checkpoint: see `snapshot` and `saved`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from tenantry.delivery.queues import SIDE_MAX, Begun, Queue
from tenantry.delivery.resume import Resume
from tenantry.delivery.suspects import Beginnings, Suspects
from tenantry.messages.checkpoints import Checkpoint, Open, Why

__all__ = ["LANE_MAX", "SIDE_MAX", "UNSAVED_MAX", "Begun", "Lane", "Queue"]

T = TypeVar("T")

LANE_MAX = 512
"""Messages of a partition in memory, without those of sidelined queues."""

UNSAVED_MAX = 256
"""Messages that may begin beyond the last checkpoint: a takeover may run so many again."""

SINGLES_MAX = 256
"""Unordered messages that wait for a retry; beyond them those of a tenant share one queue."""

BACKLOG = LANE_MAX // 4
"""A queue with more messages than this may be sidelined for its backlog."""


class Lane(Generic[T]):
    """The state of one partition, from the checkpoint with which it was claimed.

    `changed` is called when the checkpoint should be written soon, or when a message
    that had to wait may begin.
    """

    def __init__(
        self,
        found: Checkpoint,
        *,
        suspects: Suspects,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.window = found.unclean_to
        """Up to here a former owner may have begun what nobody has seen the end of."""
        self.leaving = False
        """True if nothing may begin any more."""
        self.dirty = False
        """True if the checkpoint would say something new."""
        self.running = 0
        self.held = 0
        """Messages in memory, without those of sidelined queues."""
        self.unsaved = 0
        """Messages begun since the last snapshot that is durable."""
        self.queues: dict[str, Queue[T]] = {}
        self.sidelined: dict[str, Queue[T]] = {}
        self._unsaved_since = 0
        self._changed = changed
        self._ready: deque[Queue[T]] = deque()
        self._blocked: dict[Queue[T], None] = {}
        self._singles = 0
        self._beginnings = Beginnings(self, found.begun, suspects, again=self._again)
        self._found = found
        self._resume = Resume(found)
        self.read_to = self._resume.start - 1
        for name, row in found.open.items():
            if row.why:
                self._set_side(self._queue(name), row)

    # --- what comes ----------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Up to here every message is settled or belongs to a queue of the checkpoint."""
        return max(self.read_to, self._resume.end)

    def room(self) -> int:
        """How many more messages may come."""
        return LANE_MAX - self.held

    def unordered_name(self, tenant: str, seq: int) -> str:
        """The queue of an unordered message: its own, unless too many wait for a retry.

        Every message of the shared queue comes after all that have a queue of their own.
        """
        shared, own = f"{tenant}#", f"{tenant}#{seq}"
        if seq > self._resume.end:
            too_many = shared in self.queues or self._singles >= SINGLES_MAX
            return shared if too_many else own
        first = self._resume.first(shared)  # as the former owner named them
        if shared in self.sidelined:
            side = self.sidelined[shared].side
            first = side.next if side is not None else None
        return own if first is None or seq < first else shared

    def arrived(self, name: str, seq: int, message: T) -> None:
        """Take a message from the partition's reader; one that is not for us has no `name`."""
        if seq <= self.read_to:
            return  # again, after the reader was made anew
        self.read_to = seq
        if not name:
            return
        self.dirty = True
        if seq <= self._resume.end and self._resume.is_settled(name, seq):
            return  # or its queue is sidelined
        queue = self._queue(name)
        if queue.side is not None:
            queue.passed = seq
            return
        self.held += 1
        self._append(queue, seq, message)

    def caught(self, queue: Queue[T], seq: int, message: T) -> bool:
        """Take a message from a sidelined queue's own reader.

        False: not now, nor what follows. It has come further than the lane's reader, or its queue
        pauses: then it reads again later, from where the queue stands.
        """
        if seq > self.position or queue.pauses:
            return False
        side = queue.side
        last = queue.waiting[-1][0] if queue.waiting else queue.running
        if side is not None and seq >= side.next and seq > last:
            self._append(queue, seq, message)
        return True

    def _append(self, queue: Queue[T], seq: int, message: T) -> None:
        queue.waiting.append((seq, message))
        if not queue.served and len(queue.waiting) == 1:
            self._ready.append(queue)

    # --- what runs -----------------------------------------------------------------------------

    def ready(self) -> Queue[T] | None:
        """A queue whose messages may run, for somebody to serve; None: there is none now."""
        while self._ready and not self.leaving:
            queue = self._ready.popleft()
            if queue.waiting and not queue.served:
                queue.served = True
                return queue
        return None

    def begin(self, queue: Queue[T]) -> Begun[T] | None:
        """The next message of a queue that is served; None: stop serving it."""
        if self.leaving or not queue.waiting:
            queue.served = False
            return None
        seq, message = queue.waiting[0]
        side = queue.side
        failed = side.failed if side is not None and side.next == seq else 0
        if not self._may_begin(seq, failed):
            queue.served = False
            self._blocked[queue] = None
            return None
        queue.waiting.popleft()
        if side is None:
            self.held -= 1
        queue.running = seq
        self.running += 1
        self.unsaved += 1
        self._unsaved_since += 1
        return Begun(seq, message, failed, self._beginnings.lost(seq))

    def _may_begin(self, seq: int, failed: int) -> bool:
        if self.unsaved >= UNSAVED_MAX:
            self._note()
            return False
        suspect = seq <= self.window or failed > 0 or seq in self._beginnings.counts
        if not suspect or self._beginnings.is_allowed(seq):
            return True
        if self._beginnings.propose(seq):
            self._note()
        return False

    def pause(self, queue: Queue[T]) -> None:
        """Stop serving a queue, though its next message might begin."""
        queue.served = False
        self._ready.append(queue)

    def unblock(self) -> None:
        """Something has changed: let those try again that had to wait."""
        blocked, self._blocked = self._blocked, {}
        self._ready.extend(blocked)

    def _again(self) -> None:
        self.unblock()
        self._changed()

    def settle(self, queue: Queue[T], seq: int) -> None:
        """A message has been handled, or is a dead letter."""
        self._end(queue, seq)
        queue.settled += 1
        side = queue.side
        if side is None:
            self._forget(queue)
        elif queue.single:
            self._rejoin(queue)
        elif side.next <= seq:
            why: Why = "replay" if side.why == "replay" else "backlog"
            queue.side = Open(next=seq + 1, why=why)

    def fail(self, queue: Queue[T], seq: int, *, retry_at: float, now: float, code: str) -> None:
        """A message has failed and is tried again at `retry_at`: its queue is sidelined."""
        self._end(queue, seq)
        before = self._before(queue, seq)
        row = Open(
            next=seq,
            why="failed",
            failed=before.failed + 1,
            first_failed=before.first_failed or now,
            retry_at=retry_at,
            code=code,
        )
        self._put_aside(queue, row)

    def postpone(self, queue: Queue[T], seq: int, *, retry_at: float, code: str) -> None:
        """A message can't be settled now, which is none of its tries: again at `retry_at`."""
        self._end(queue, seq, decided=False)
        before = self._before(queue, seq)
        row = msgspec.structs.replace(before, next=seq, why="failed", retry_at=retry_at, code=code)
        self._put_aside(queue, row)

    def _before(self, queue: Queue[T], seq: int) -> Open:
        side = queue.side
        return side if side is not None and side.next == seq else Open(next=seq)

    def _end(self, queue: Queue[T], seq: int, *, decided: bool = True) -> None:
        queue.running = 0
        self.running -= 1
        self.dirty = True
        if self._beginnings.end(seq, decided=decided):
            self._note()

    def _note(self) -> None:
        self.dirty = True
        self._changed()

    # --- who is sidelined ----------------------------------------------------------------------

    def look_at_backlog(self, seconds: float) -> Queue[T] | None:
        """Sideline the longest queue where others would wait for it for more than a second.

        To be called each `seconds` while the lane is full. Returns the queue that was sidelined.
        """
        longest = max(self.queues.values(), key=Queue.backlog, default=None)
        if longest is None:
            return None
        pace = longest.settled / seconds
        for queue in self.queues.values():
            queue.settled = 0
        if longest.backlog() <= max(pace, BACKLOG):
            return None
        self._put_aside(longest, Open(next=longest.waiting[0][0], why="backlog"))
        return longest

    def sideline(self, name: str) -> Queue[T]:
        """Sideline a queue for a replay: its messages wait, but for one that runs already."""
        queue = self._queue(name)
        if queue.side is not None:
            row = msgspec.structs.replace(queue.side, why="replay", retry_at=0.0)
        elif queue.waiting:
            row = Open(next=queue.waiting[0][0], why="replay")
        else:
            first = self._resume.first(name)
            following = self.position if first is None else max(first - 1, self.read_to)
            row = Open(next=following + 1, why="replay")
        self._put_aside(queue, row)
        return queue

    def retry(self, queue: Queue[T]) -> None:
        """The pause of a sidelined queue is over."""
        if queue.side is not None and queue.pauses:
            why: Why = "failed" if queue.side.failed else "backlog"
            self._set_side(queue, msgspec.structs.replace(queue.side, retry_at=0.0, why=why))

    def caught_up(self, queue: Queue[T], upto: int) -> bool:
        """Nothing is left from where it stands to `upto`, a former position; True: it is back."""
        if queue.side is None or queue.pauses or queue.running or queue.waiting:
            return False
        if queue.passed > upto:
            return False
        self._rejoin(queue)
        return True

    def erased(self, name: str) -> None:
        """A queue's messages were erased from the journal: it waits for a retry of none of them.

        What has come since then is read as always.
        """
        queue = self.sidelined.get(name)
        if queue is None:
            self._resume.drop(name)
        elif queue.side is not None and queue.side.why != "replay":
            self.retry(queue)

    def drop(self, tenant: str, upto: int) -> None:
        """Messages of a tenant up to `upto` were erased: none that waits in memory begins."""
        for queue in [each for each in self.queues.values() if each.tenant == tenant]:
            first = queue.waiting[0][0] if queue.waiting else upto + 1
            if first > upto:
                continue
            self._beginnings.take_back(first)
            while queue.waiting and queue.waiting[0][0] <= upto:
                queue.waiting.popleft()
                self.held -= queue.side is None
            self._forget(queue)
            self._note()

    def _put_aside(self, queue: Queue[T], row: Open) -> None:
        """Sideline a queue; what waits of it is read again."""
        if queue.side is None:
            self.held -= len(queue.waiting)
            self._resume.drop(queue.name)
            if queue.waiting:
                queue.passed = queue.waiting[-1][0]
        elif queue.side.why == "replay" and row.why == "failed":
            row = msgspec.structs.replace(row, why="replay", retry_at=0.0)
        self._take_back(queue)
        self._set_side(queue, row)

    def _take_back(self, queue: Queue[T]) -> None:
        """Drop what waits of a queue: its first message was perhaps to begin, and will not."""
        if queue.waiting:
            self._beginnings.take_back(queue.waiting[0][0])
            queue.waiting.clear()

    def _set_side(self, queue: Queue[T], row: Open) -> None:
        if queue.side is None:
            self.sidelined[queue.name] = queue
            self._singles += bool(queue.single)
        queue.side = row
        self._note()

    def _rejoin(self, queue: Queue[T]) -> None:
        queue.side = None
        self.sidelined.pop(queue.name, None)
        self._singles -= bool(queue.single)
        self._note()
        self._forget(queue)

    def _queue(self, name: str) -> Queue[T]:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name)
        return queue

    def _forget(self, queue: Queue[T]) -> None:
        if not queue.waiting and not queue.running and queue.side is None:
            self.queues.pop(queue.name, None)

    # --- the checkpoint ------------------------------------------------------------------------

    @property
    def floor(self) -> int:
        """Everything up to here is settled, of every tenant."""
        return self._floor(self._open())

    def _floor(self, rows: dict[str, Open]) -> int:
        return min((row.next - 1 for row in rows.values()), default=self.position)

    @property
    def urgent(self) -> bool:
        """Tell whether something waits for the checkpoint."""
        return self._beginnings.urgent or self.unsaved >= UNSAVED_MAX

    def snapshot(self, owner: str, age: float) -> Checkpoint:
        """The checkpoint of now; without an `owner` the partition is released with it.

        Where it can't be written, set `dirty` and take another one.
        """
        self.dirty = False
        self._unsaved_since = 0
        rows = self._open()
        floor = self._floor(rows)
        self._beginnings.forget(floor)
        if floor >= self.window:
            self.window = 0
        begun = self._beginnings.told()
        if self.leaving:
            running = {queue.running for queue in self.queues.values()}
            begun = self._beginnings.without_those_to_come(running)
        return msgspec.structs.replace(
            self._found,
            owner=owner,
            read_to=self.position,
            open=rows,
            begun=begun,
            age=round(age, 3),
            unclean_to=self.window,
        )

    def saved(self) -> None:
        """The last snapshot is durable."""
        self.unsaved = self._unsaved_since
        self._beginnings.saved()
        self.unblock()

    def _open(self) -> dict[str, Open]:
        found = self._resume.rows(self.read_to)
        for name, queue in self.queues.items():
            if (row := queue.row()) is not None:
                found[name] = row
        return found
