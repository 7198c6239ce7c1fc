"""The second reading of a new owner: it starts at the first message that is not settled."""

from __future__ import annotations

from tenantry.messages.checkpoints import Checkpoint, Open


class Resume:
    """Tells what the former owner has settled among the messages up to `end`.

    A queue that is sidelined has no place here: a reader of its own brings its messages.
    """

    def __init__(self, found: Checkpoint) -> None:
        self.end = found.read_to
        """The position of the former owner."""
        self._unsettled = {name: row.next for name, row in found.open.items() if not row.why}
        self.start = min((found.read_to + 1, *self._unsettled.values()))
        """The first message to read."""

    def is_settled(self, name: str, seq: int) -> bool:
        """Tell whether the lane's reader drops a message up to `end`, of this queue."""
        first = self._unsettled.get(name)
        return first is None or seq < first

    def first(self, name: str) -> int | None:
        """The first unsettled message of a queue; None where there was none."""
        return self._unsettled.get(name)

    def drop(self, name: str) -> None:
        """Leave a queue to a reader of its own, or drop what comes of it."""
        self._unsettled.pop(name, None)

    def rows(self, read_to: int) -> dict[str, Open]:
        """The rows for what comes after `read_to`, by queue."""
        if read_to >= self.end:
            return {}
        found = {}
        for name, first in self._unsettled.items():
            if first > read_to:
                found[name] = Open(next=first)
            elif "#" not in name or name.endswith("#"):  # more of it may come
                found[name] = Open(next=read_to + 1)
        return found
