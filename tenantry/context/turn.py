"""The turn of one message: under which conditions what its handler does may count."""

from __future__ import annotations

from collections.abc import Callable

from tenantry.errors import LaneLost

_EPOCH = 1 << 48
"""Sequences of the journal stay below this."""


class Turn:
    """One run of a handler for one message of the journal.

    `held` tells whether this replica still holds the lane that the message came by. `epoch` counts
    how often the tenant was set back, `generation` names the namespace of its state.
    """

    __slots__ = ("_held", "_over", "fence", "generation", "replaying", "suppressed")

    def __init__(
        self,
        held: Callable[[], bool],
        *,
        seq: int = 0,
        epoch: int = 0,
        generation: int = 0,
        ordered: bool = True,
        replaying: bool = False,
    ) -> None:
        self._held = held
        self._over = False
        self.fence = epoch * _EPOCH + seq if ordered else None
        """What this message writes is refused where a higher one has written; None: no order."""
        self.generation = generation
        self.replaying = replaying
        self.suppressed = 0
        """What the handler wanted to send in a replay and what was held back."""

    @property
    def valid(self) -> bool:
        """Whether what the handler does still counts."""
        return not self._over and self._held()

    def check(self) -> None:
        """Raise :class:`LaneLost` where what the handler does must not count any more."""
        if not self.valid:
            raise LaneLost("another replica has taken over this message")

    def end(self) -> None:
        """Whatever its handler still does comes too late."""
        self._over = True


def free(generation: int = 0) -> Turn:
    """The turn of a request: it has no place in the journal's order."""
    return Turn(lambda: True, ordered=False, generation=generation)
