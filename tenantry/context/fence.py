"""The fence of one message: whether what its handler does may still count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenantry.errors import LaneLost

EPOCH = 1 << 48
"""Sequences of the journal stay below this."""


def fence_of(epoch: int, seq: int) -> int:
    """The value of a fence: epochs count before sequences."""
    return epoch * EPOCH + seq


class Fence:
    """Guards one run of a handler: says whether the run may count, and its place in the order.

    `lost` tells whether this instance has lost the message for good. `ours` waits while that is in
    doubt and tells whether the message is still this instance's. `seq` is the message's sequence in
    the journal, 0 for a request or a reset hook. `epoch` counts how often the tenant was set back,
    and `generation` names the namespace of its state. `claim` is an object that stands for the
    claim of the partition that the message belongs to: each claim has a new one.
    """

    __slots__ = (
        "_lost",
        "_ours",
        "_over",
        "claim",
        "committing",
        "generation",
        "replaying",
        "seq",
        "suppressed",
        "value",
    )

    def __init__(
        self,
        lost: Callable[[], bool],
        ours: Callable[[], Awaitable[bool]],
        *,
        seq: int = 0,
        epoch: int = 0,
        generation: int = 0,
        ordered: bool = True,
        replaying: bool = False,
        claim: object | None = None,
    ) -> None:
        self._lost = lost
        self._ours = ours
        self._over = False
        self.claim = claim
        """The claim of the partition: anything written under another one may have changed since."""
        self.seq = seq
        self.value = fence_of(epoch, seq) if ordered else None
        """State refuses this message where a higher value has written; None means no order."""
        self.generation = generation
        self.replaying = replaying
        self.suppressed = 0
        """How many messages the handler emitted or asked in a replay that were held back."""
        self.committing = False
        """True if the handler has succeeded and its effects are being made durable."""

    @property
    def is_staged(self) -> bool:
        """Tell whether writes of state wait for the handler's success, as a stored message's do."""
        return self.seq > 0

    @property
    def lost(self) -> bool:
        """Tell whether what the handler does can never count again."""
        return self._over or self._lost()

    def check(self) -> None:
        """Raise :class:`LaneLost` where what the handler does can never count again."""
        if self.lost:
            raise LaneLost("another replica has taken over this message")

    async def ours(self) -> None:
        """Return when the message certainly belongs to this instance.

        Waits while that is in doubt. Raises :class:`LaneLost` when the message is lost.
        """
        self.check()
        if not await self._ours():
            raise LaneLost("another replica has taken over this message")
        self.check()

    def end(self) -> None:
        """Let nothing count that the handler still does."""
        self._over = True


def free(generation: int = 0) -> Fence:
    """The fence of a request: it is always ours and has no place in the journal's order."""
    return Fence(_never, _always, ordered=False, generation=generation)


def _never() -> bool:
    return False


async def _always() -> bool:
    return True
