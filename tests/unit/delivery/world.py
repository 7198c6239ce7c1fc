"""A simulated journal, and a process that owns two partitions of it, dies, loses and hands over.

Everything is drawn from one seed. What must never happen is asserted where it would.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from tenantry.delivery import lane as lanes
from tenantry.delivery import settlement
from tenantry.delivery.lane import Begun, Lane, Queue
from tenantry.delivery.settlement import DeadLetter, Outcome, Result, RetryAfter
from tenantry.delivery.suspects import LONE_FROM, Suspects
from tenantry.errors import HandlerFailed
from tenantry.messages.checkpoints import Checkpoint
from tenantry.service.retry import Retry
from tests.unit.delivery.journal import Entry, Reader, Shell, covers, write_journal

LIVES = 12
"""After so many takeovers nothing but poison disturbs any more, so that a run ends."""

STEPS = 100_000
SIDE_MAX = 4


class World:
    """One run."""

    def __init__(self, seed: int) -> None:
        draw = self.random = random.Random(seed)
        self.calm = draw.random() < 0.15
        """Whether nothing is lost: each message runs exactly once, but for failures."""
        self.slots = draw.choice([2, 5, 50])
        self.retry = Retry(tries=draw.choice([1, 2, 4]))
        self.failing = draw.choice([0.0, 0.1, 0.4])
        self.pace = draw.choice([0.02, 0.3])
        """How likely something comes into the journal at a step."""
        self.journal = write_journal(draw)
        self.seqs = [[each.seq for each in part] for part in self.journal]
        self.entries = {each.seq: each for part in self.journal for each in part}
        self.ordered: dict[str, list[int]] = {}
        for each in self.entries.values():
            if each.tenant and each.ordered:
                self.ordered.setdefault(each.tenant, []).append(each.seq)
        share = 0.0 if self.calm else draw.choice([0.0, 0.02, 0.06])
        good = [each.seq for each in self.entries.values() if each.tenant]
        self.poison = {seq for seq in good if draw.random() < share}
        self.last = max(self.entries)
        self.end = 0
        """The last sequence that is in the journal by now."""
        self.step = self.lives = 0
        self.undeserved = 0
        """Deaths and losses for which no suspect is to blame."""
        self.settled: set[int] = set()
        self.durable = [Checkpoint() for _ in self.journal]
        self.durably_settled: set[int] = set()
        self.begun: dict[int, int] = {}
        self.again: dict[int, int] = {}
        """How often a message has failed or was postponed."""
        self.erased: set[int] = set()
        """Messages that are in the journal no more."""
        self.suspects = Suspects()
        self.shells = [self._take_over(number, clean=True) for number in range(len(self.journal))]

    # --- the run -------------------------------------------------------------------------------

    def run(self) -> None:
        """Go on until everything is settled, and look whether it is."""
        works = [self._read, self._serve, self._begin, self._finish, self._save, self._catch_up]
        while not self._is_done():
            self.step += 1
            assert self.step < STEPS, f"stuck: {[vars(each.lane) for each in self.shells]}"
            if self.random.random() < self.pace:
                self.end = min(self.last, self.end + self.random.randrange(1, 9))
            self.random.choice(works)(self.random.choice(self.shells))
            if self.random.random() < 0.02:
                self._look(self.random.choice(self.shells))
            if self.random.random() < 0.006:
                self._disturb(self.random.choice(self.shells))
            for shell in self.shells:
                self._check(shell)
        self._check_end()

    def _is_done(self) -> bool:
        return self.end == self.last and all(
            shell.idle and shell.at >= self._last(shell.number) for shell in self.shells
        )

    def _last(self, number: int) -> int:
        return max((seq for seq in self.seqs[number] if seq not in self.erased), default=0)

    def _check_end(self) -> None:
        for shell in self.shells:
            lane, record = shell.lane, shell.lane.snapshot("me", 0.0)
            assert lane.position >= self._last(shell.number)
            left = [each for each in self._following(shell.number, 0, self.end) if each.tenant]
            assert not any(covers(record, each) for each in left)
            assert self.erased.issuperset(record.begun)
            assert self.erased or (lane.floor, record.open) == (lane.position, {})
            assert (lane.held, lane.running, lane._singles) == (0, 0, 0)
        due = {e.seq for e in self.entries.values() if e.tenant} - self.erased
        assert due <= self.settled, f"lost: {due - self.settled}"
        if self.calm:
            for seq in due:
                count = self.begun[seq]
                assert count == 1 + self.again.get(seq, 0), f"{seq} ran {count} times"

    def _check(self, shell: Shell) -> None:
        lane = shell.lane
        in_memory = sum(len(q.waiting) for q in lane.queues.values() if q.side is None)
        assert lane.held == in_memory
        assert lane.running == len(shell.running)
        assert lane._singles == sum(bool(queue.single) for queue in lane.sidelined.values())

    # --- one thing that an owner does ----------------------------------------------------------

    def _following(self, number: int, seq: int, end: int) -> Iterator[Entry]:
        """The messages after `seq`, up to `end`."""
        seqs = self.seqs[number]
        for at in range(bisect_right(seqs, seq), bisect_right(seqs, min(end, self.end))):
            if seqs[at] not in self.erased:
                yield self.journal[number][at]

    def _name(self, shell: Shell, entry: Entry) -> str:
        if not entry.tenant:
            return ""
        if entry.ordered:
            return entry.tenant
        return shell.lane.unordered_name(entry.tenant, entry.seq)

    def _read(self, shell: Shell) -> None:
        if self.random.random() < 0.05:  # made anew, a little too early
            shell.at = max(0, shell.lane.read_to - self.random.randrange(4))
        for entry in self._following(shell.number, shell.at, self.end):
            if shell.lane.room() <= 0 or self.random.random() < 0.1:
                break
            shell.at = entry.seq
            shell.lane.arrived(self._name(shell, entry), entry.seq, entry.seq)

    def _serve(self, shell: Shell) -> None:
        while (queue := shell.lane.ready()) is not None:
            shell.serving.append(queue)

    def _begin(self, shell: Shell) -> None:
        if not shell.serving or len(shell.running) >= self.slots:
            return
        queue = shell.serving.pop(self.random.randrange(len(shell.serving)))
        if self.random.random() < 0.05:
            shell.lane.pause(queue)
            return
        if (begun := shell.lane.begin(queue)) is None:
            return
        self._check_beginning(shell, queue, begun)
        shell.running[queue] = begun
        shell.begun += 1
        shell.begun_since += 1
        assert shell.begun <= lanes.UNSAVED_MAX
        self.begun[begun.seq] = self.begun.get(begun.seq, 0) + 1
        if shell.lane._beginnings.is_allowed(begun.seq):
            shell.counted.add(begun.seq)

    def _check_beginning(self, shell: Shell, queue: Queue[int], begun: Begun[int]) -> None:
        seq, _, failed, lost = begun
        entry = self.entries[seq]
        assert seq not in self.durably_settled, f"{seq} is settled by the checkpoint"
        assert seq not in shell.settled, f"{seq} was settled by this lane"
        assert queue.name not in shell.replays, f"{queue.name} waits for a replay"
        assert failed < self.retry.tries
        if entry.ordered:
            before = {each for each in self.ordered[entry.tenant] if each < seq} - self.erased
            assert self.settled.issuperset(before), f"{seq} overtakes"
            others = [self.entries[each.seq] for each in shell.running.values()]
            assert all(e.tenant != entry.tenant or not e.ordered for e in others)
        given_up = settlement.given_up(self.retry, failed, lost)
        if seq in self.poison:
            tried = self.begun.get(seq, 0)
            most = self.retry.tries + settlement.LOST_MORE
            assert given_up or tried < most, f"{seq} began {tried} times"
        else:
            assert lost <= LONE_FROM + self.undeserved, f"{seq} is blamed {lost} times"
            assert not (given_up and not self.undeserved), f"{seq} is given up"

    def _finish(self, shell: Shell) -> None:
        """A message that runs ends, one way or another."""
        if not shell.running:
            return
        queue = self.random.choice(list(shell.running))
        seq, _, failed, lost = shell.running[queue]
        given_up = settlement.given_up(self.retry, failed, lost)
        if seq in self.poison and not given_up:
            self._die(undeserved=seq not in shell.counted)
            return
        del shell.running[queue]
        shell.counted.discard(seq)
        self._decide(shell, queue, seq, self._ended(given_up, failed))
        shell.serving.append(queue)

    def _ended(self, given_up: HandlerFailed | None, failed: int) -> settlement.Decision:
        result = Result(Outcome.DONE)
        if self.random.random() < self.failing:
            result = Result(Outcome.FAILED, HandlerFailed("it failed"))
        decision = settlement.decide(result, self.retry, failed)
        if given_up:
            decision = DeadLetter(given_up)
        if isinstance(decision, DeadLetter) and self.random.random() < 0.3:
            return settlement.unwritten(decision)
        return decision

    def _decide(
        self, shell: Shell, queue: Queue[int], seq: int, decision: settlement.Decision
    ) -> None:
        if not isinstance(decision, RetryAfter):
            shell.lane.settle(queue, seq)
            shell.settled.add(seq)
            self.settled.add(seq)
            return
        self.again[seq] = self.again.get(seq, 0) + 1
        at = self.step + self.random.randrange(1, 200)
        if decision.counts:
            shell.lane.fail(queue, seq, retry_at=at, now=self.step, code="failed")
        else:
            shell.lane.postpone(queue, seq, retry_at=at, code="failed")

    # --- sidelined queues ----------------------------------------------------------------------

    def _look(self, shell: Shell) -> None:
        if shell.lane.held >= lanes.LANE_MAX * 3 // 4:
            shell.lane.look_at_backlog(self.random.choice([0.25, 100.0]))

    def _catch_up(self, shell: Shell) -> None:
        gone = [queue for queue in shell.readers if queue.side is None or queue.pauses]
        for queue in gone:
            del shell.readers[queue]
        for queue in list(shell.lane.sidelined.values()):
            assert queue.side is not None
            if queue.pauses:
                self._end_pause(shell, queue)
            elif queue.single:
                self._read_single(shell, queue)
            else:
                self._read_on(shell, queue)

    def _end_pause(self, shell: Shell, queue: Queue[int]) -> None:
        assert queue.side is not None
        due = max(queue.side.retry_at, shell.replays.get(queue.name, 0))
        if due <= self.step and not queue.running:
            shell.replays.pop(queue.name, None)
            shell.lane.retry(queue)

    def _read_single(self, shell: Shell, queue: Queue[int]) -> None:
        if queue.waiting or queue.running:
            return
        if queue.single in self.erased:
            assert shell.lane.caught_up(queue, shell.lane.position)
        else:
            assert shell.lane.caught(queue, queue.single, queue.single)

    def _read_on(self, shell: Shell, queue: Queue[int]) -> None:
        lane, side = shell.lane, queue.side
        assert side is not None
        if queue not in shell.readers or self.random.random() < 0.05:
            shell.readers[queue] = Reader(side.next - 1 - self.random.choice([0, 0, 9]))
        reader = shell.readers[queue]
        replica = self.end - self.random.choice([0, 0, 0, 20])  # it may lag
        for entry in self._following(shell.number, reader.at, replica):
            if len(queue.waiting) >= SIDE_MAX:
                return
            mine = entry.tenant == queue.tenant and self._name(shell, entry) == queue.name
            if mine and not lane.caught(queue, entry.seq, entry.seq):
                break
            reader.at = entry.seq
        self._ask(shell, queue, reader)

    def _ask(self, shell: Shell, queue: Queue[int], reader: Reader) -> None:
        """Ask the leader whether anything of it is left, or use its answer."""
        if reader.asked is None:
            if not queue.waiting and not queue.running:
                upto = shell.lane.position
                left = self._following(shell.number, reader.at, upto)
                found = any(each.tenant == queue.tenant for each in left)
                reader.asked = (upto, found, self.step + self.random.randrange(40))
            return
        upto, found, answers = reader.asked
        if answers <= self.step:
            reader.asked = None
            if not found and shell.lane.caught_up(queue, upto):
                del shell.readers[queue]

    # --- the checkpoint ------------------------------------------------------------------------

    def _save(self, shell: Shell) -> None:
        lane = shell.lane
        if shell.pending is None:
            if lane.dirty or lane.urgent:
                shell.pending = self._snapshot(shell, "me")
        elif shell.erased:  # somebody else has written
            for name in shell.erased:
                lane.erased(name)
            shell.erased.clear()
            shell.pending, lane.dirty = None, True
        elif self.random.random() < 0.15:  # nobody knows whether it was written
            if self.random.random() < 0.5:
                self._store(shell, shell.pending)
            shell.pending, lane.dirty = None, True
        else:
            self._store(shell, shell.pending)
            shell.pending = None
            lane.saved()
            shell.begun = shell.begun_since

    def _snapshot(self, shell: Shell, owner: str) -> Checkpoint:
        lane = shell.lane
        record = lane.snapshot(owner, 0.0)
        shell.begun_since = 0
        for seq in shell.settled:
            assert seq in self.erased or not covers(record, self.entries[seq]), f"{seq} is settled"
        most = lane.held + lane.running + len(lane.sidelined)
        if lane.read_to < self.durable[shell.number].read_to:
            most += shell.rows
        assert len(record.open) <= most
        return record

    def _store(self, shell: Shell, record: Checkpoint) -> None:
        self.durable[shell.number] = msgspec.json.decode(
            msgspec.json.encode(record), type=Checkpoint
        )
        for entry in self._following(shell.number, 0, record.read_to):
            if entry.tenant and not covers(record, entry):
                assert entry.seq in self.settled, f"{entry.seq} counts as settled"
                self.durably_settled.add(entry.seq)

    # --- what goes wrong -----------------------------------------------------------------------

    def _take_over(self, number: int, *, clean: bool) -> Shell:
        self.lives += 1
        found = self.durable[number]
        if not clean:
            found = msgspec.structs.replace(found, unclean_to=self.end)
        lane = Lane[int](found, suspects=self.suspects)
        return Shell(number, lane, lane.read_to, len(found.open))

    def _disturb(self, shell: Shell) -> None:
        """Something that happens now and then."""
        what = self.random.randrange(8)
        if what < 2:
            self._replay(shell)
        elif what == 2:
            self._erase(shell)
        elif self.lives < LIVES and what == 3:
            self._release(shell)
        elif self.lives < LIVES and not self.calm and what == 4:
            self._lose(shell)
        elif self.lives < LIVES and not self.calm and what == 5:
            self._die(undeserved=True)

    def _replay(self, shell: Shell) -> None:
        """Sideline a tenant's queues while a replay is at work."""
        tenants = sorted({each.tenant for each in self.journal[shell.number]} - {""})
        if not tenants:
            return
        tenant = self.random.choice(tenants)
        for name in (tenant, f"{tenant}#"):
            queue = shell.lane.sideline(name)
            assert shell.lane.sidelined[name] is queue
            shell.replays[name] = self.step + self.random.randrange(200)

    def _erase(self, shell: Shell) -> None:
        """Take what a tenant has until now out of the journal, and its rows out of the checkpoint.

        The owner hears of it when it writes its next checkpoint.
        """
        record = self.durable[shell.number]
        if not record.open:
            return
        tenant = self.random.choice(sorted(record.open)).partition("#")[0]
        before = self._following(shell.number, 0, self.end)
        self.erased |= {each.seq for each in before if each.tenant == tenant}
        rows = {name for name in record.open if name.partition("#")[0] == tenant}
        kept = {name: row for name, row in record.open.items() if name not in rows}
        self.durable[shell.number] = msgspec.structs.replace(record, open=kept)
        shell.erased |= rows

    def _written_perhaps(self, shell: Shell) -> None:
        if shell.pending is not None and self.random.random() < 0.5:
            self._store(shell, shell.pending)

    def _die(self, *, undeserved: bool) -> None:
        """The process ends; another one takes everything over."""
        self.undeserved += undeserved
        for shell in self.shells:
            self._written_perhaps(shell)
        self.suspects = Suspects()
        self.shells = [self._take_over(each.number, clean=False) for each in self.shells]

    def _lose(self, shell: Shell) -> None:
        """Another owner takes a partition, while the process goes on."""
        self.undeserved += 1
        self._written_perhaps(shell)
        shell.lane.leaving = True
        self.suspects.leave(shell.lane)
        self.shells[shell.number] = self._take_over(shell.number, clean=False)

    def _release(self, shell: Shell) -> None:
        """A partition is handed over, once what runs has ended."""
        lane = shell.lane
        lane.leaving = True
        assert lane.ready() is None
        if shell.pending is not None:
            self._written_perhaps(shell)
            shell.pending = None
        for queue, begun in list(shell.running.items()):
            given_up = settlement.given_up(self.retry, begun.failed, begun.lost)
            if begun.seq in self.poison and not given_up:
                self._die(undeserved=begun.seq not in shell.counted)
                return
            del shell.running[queue]
            self._decide(shell, queue, begun.seq, self._ended(given_up, begun.failed))
            assert lane.begin(queue) is None
        self._store(shell, self._snapshot(shell, ""))
        self.suspects.leave(lane)
        self.shells[shell.number] = self._take_over(shell.number, clean=True)
