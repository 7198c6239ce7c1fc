"""Short words for what an owner does with a lane."""

from __future__ import annotations

import msgspec

from tenantry.delivery.lane import Begun, Lane, Queue
from tenantry.delivery.suspects import Suspects
from tenantry.messages.checkpoints import Checkpoint, Open

LATER = 9.0
"""When something is tried again."""


def new_lane(
    *,
    read_to: int = 0,
    unclean_to: int = 0,
    begun: dict[int, int] | None = None,
    suspects: Suspects | None = None,
    **rows: int | Open,
) -> Lane[int]:
    """A lane that goes on from a checkpoint; `a_7=7` stands for the row of `a#7`, `a_` for `a#`."""
    found = {
        name.replace("_", "#"): Open(next=row) if isinstance(row, int) else row
        for name, row in rows.items()
    }
    record = Checkpoint(read_to=read_to, open=found, begun=begun or {}, unclean_to=unclean_to)
    return Lane[int](record, suspects=suspects or Suspects())


def after_crash(*seqs: int, suspects: Suspects | None = None, **lost: int) -> Lane[int]:
    """A lane after an unclean takeover; `t7=2` says how often message 7 was lost."""
    begun = {int(name[1:]): count for name, count in lost.items()}
    lane = new_lane(unclean_to=99, begun=begun, suspects=suspects)
    for seq in seqs:
        put(lane, f"t{seq}", seq)
    return lane


def heir(record: Checkpoint, *, unclean_to: int = 0) -> Lane[int]:
    """The lane of the next owner, in another process."""
    if unclean_to:
        record = msgspec.structs.replace(record, unclean_to=unclean_to)
    return Lane[int](record, suspects=Suspects())


def put(lane: Lane[int], name: str, *seqs: int) -> None:
    """Messages come from the partition's reader."""
    for seq in seqs:
        lane.arrived(name, seq, seq)


def run(lane: Lane[int]) -> dict[int, Queue[int]]:
    """Begin all that may begin; returns by sequence whose they are."""
    found = {}
    while (queue := lane.ready()) is not None:
        if (begun := lane.begin(queue)) is not None:
            found[begun.seq] = queue
    return found


def run_one(lane: Lane[int]) -> tuple[Queue[int], Begun[int]]:
    """Begin the one message that may begin now."""
    queue = lane.ready()
    assert queue is not None
    begun = lane.begin(queue)
    assert begun is not None
    return queue, begun


def go_on(lane: Lane[int], queue: Queue[int]) -> int:
    """Begin the next message of a queue whose last one has just ended; 0 where nothing begins."""
    begun = lane.begin(queue)
    return 0 if begun is None else begun.seq


def save(lane: Lane[int]) -> Checkpoint:
    """Write the checkpoint."""
    record = lane.snapshot("me", 0.0)
    lane.saved()
    return record


def fail(lane: Lane[int], queue: Queue[int], seq: int, *, now: float = 1.0) -> None:
    """A message fails, and nothing more of its queue begins."""
    lane.fail(queue, seq, retry_at=LATER, now=now, code="failed")
    assert lane.begin(queue) is None


def failed(lane: Lane[int], name: str, *seqs: int) -> Queue[int]:
    """A queue whose first message has failed."""
    put(lane, name, *seqs)
    queue, begun = run_one(lane)
    fail(lane, queue, begun.seq)
    return queue


def bring(lane: Lane[int], queue: Queue[int], *seqs: int) -> None:
    """A sidelined queue's pause is over, and its reader brings messages."""
    lane.retry(queue)
    for seq in seqs:
        assert lane.caught(queue, seq, seq)


def suspect(lane: Lane[int]) -> dict[int, Queue[int]]:
    """Begin all that may begin once a checkpoint is written."""
    found = run(lane)
    save(lane)
    return found | run(lane)
