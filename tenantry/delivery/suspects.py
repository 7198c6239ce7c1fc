"""Messages that may have ended or hung their worker, and which of them may run beside others."""

from __future__ import annotations

from collections.abc import Callable

LONE_FROM = 2
"""A message that was lost so often runs with no other suspect beside it."""

CAREFUL = 32
"""Suspects of a lane whose beginnings one checkpoint writes down."""


class Suspects:
    """The suspects that run in this process, over all partitions and services.

    A suspect is here from before its beginning is written down until its end is. So when the
    process dies with a lone one, no other suspect is blamed.
    """

    def __init__(self) -> None:
        self._here: set[tuple[object, int]] = set()
        self._lone: tuple[object, int] | None = None
        self._wanted: tuple[object, int] | None = None
        """A lone one that waits for the others to end: no other begins before it."""
        self._waiting: dict[object, Callable[[], None]] = {}

    def enter(self, lane: object, seq: int, *, lone: bool) -> bool:
        """Let a suspect of a lane begin; False where it has to wait."""
        who = (lane, seq)
        if who in self._here:
            return True
        if self._lone is not None or self._wanted not in (None, who):
            return False
        if lone:
            if self._here:
                self._wanted = who
                return False
            self._lone, self._wanted = who, None
        self._here.add(who)
        return True

    def leave(self, lane: object, seq: int | None = None) -> None:
        """Let go of a suspect whose end is durable; without `seq`, of all of a lane that is left.

        A suspect that only waits gives up its place before the others.
        """
        gone = {who for who in self._here if who[0] is lane and seq in (None, who[1])}
        self._here -= gone
        if self._lone in gone:
            self._lone = None
        if self._wanted is not None and self._wanted[0] is lane and seq in (None, self._wanted[1]):
            self._wanted = None
        if seq is None:
            self._waiting.pop(lane, None)
        waiting, self._waiting = self._waiting, {}
        for again in waiting.values():
            again()

    def wait(self, lane: object, again: Callable[[], None]) -> None:
        """Call `again` once, when a suspect has left."""
        self._waiting[lane] = again


class Beginnings:
    """The beginnings of one lane's suspects: each is durable before it happens.

    `counts` has the beginnings of a message that nobody saw the end of, by sequence. A suspect is
    proposed, then allowed once a checkpoint has its count, then it ends; its end is durable before
    it leaves :class:`Suspects`. `again` is called when one that had to wait for other suspects may
    be proposed.
    """

    def __init__(
        self,
        lane: object,
        found: dict[int, int],
        suspects: Suspects,
        *,
        again: Callable[[], None],
    ) -> None:
        self.counts = dict(found)
        self._lane = lane
        self._suspects = suspects
        self._again = again
        self._proposed: set[int] = set()
        self._allowed: set[int] = set()
        self._ended: set[int] = set()
        self._told: tuple[set[int], set[int]] = (set(), set())
        """The proposed and the ended ones that the last snapshot has."""

    @property
    def urgent(self) -> bool:
        """Tell whether something waits for the checkpoint."""
        return bool(self._proposed or self._ended)

    def is_allowed(self, seq: int) -> bool:
        """Tell whether the beginning of a suspect is durable."""
        return seq in self._allowed

    def lost(self, seq: int) -> int:
        """How often a message was begun and nobody saw its end, without a beginning to come."""
        return self.counts.get(seq, 0) - (seq in self._proposed or seq in self._allowed)

    def propose(self, seq: int) -> bool:
        """Have a beginning written down; False: not now, or it is under way."""
        if seq in self._proposed or len(self._proposed) >= CAREFUL:
            return False
        lost = self.lost(seq)
        if not self._suspects.enter(self._lane, seq, lone=lost >= LONE_FROM):
            self._suspects.wait(self._lane, self._again)
            return False
        self._proposed.add(seq)
        self._ended.discard(seq)
        self.counts[seq] = lost + 1
        return True

    def take_back(self, seq: int) -> None:
        """A suspect leaves the lane's memory before it has begun."""
        if seq in self._proposed or seq in self._allowed:
            self._end(seq, self.lost(seq))
        elif seq not in self._ended:
            self._suspects.leave(self._lane, seq)

    def end(self, seq: int, *, decided: bool) -> bool:
        """A message has ended; True: the checkpoint should say so soon.

        Where nothing was `decided` it was no try, and its count is what it was before.
        """
        lost = 0 if decided else self.lost(seq)
        if seq in self._allowed:
            self._end(seq, lost)
            return True
        if not lost:
            self.counts.pop(seq, None)
        return False

    def _end(self, seq: int, lost: int) -> None:
        self._proposed.discard(seq)
        self._allowed.discard(seq)
        self._ended.add(seq)
        if lost:
            self.counts[seq] = lost
        else:
            self.counts.pop(seq, None)

    def forget(self, floor: int) -> None:
        """Drop the counts of messages up to `floor`: they are settled, or were erased."""
        if self.counts and min(self.counts) <= floor:
            self.counts = {seq: count for seq, count in self.counts.items() if seq > floor}

    def told(self) -> dict[int, int]:
        """The counts for a checkpoint; what it says becomes durable with :meth:`saved`."""
        self._told = set(self._proposed), set(self._ended)
        return dict(self.counts)

    def without_those_to_come(self, running: set[int]) -> dict[int, int]:
        """The counts for a checkpoint after which nothing begins."""
        waits = (self._proposed | self._allowed) - running
        less = {seq: count - (seq in waits) for seq, count in self.counts.items()}
        return {seq: count for seq, count in less.items() if count}

    def saved(self) -> None:
        """Note that the last snapshot is durable."""
        proposed, ended = self._told
        self._told = (set(), set())
        self._allowed |= proposed & self._proposed
        self._proposed -= proposed
        gone = ended & self._ended
        self._ended -= gone
        for seq in gone:
            self._suspects.leave(self._lane, seq)
