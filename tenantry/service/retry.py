"""How often and how fast a stored message is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tenantry.errors import (
    BadContext,
    BadMessage,
    DeclarationError,
    Hopeless,
    NotAllowed,
    TenantUnknown,
    TooDeep,
    TooLarge,
)

_HOPELESS = (BadContext, BadMessage, Hopeless, NotAllowed, TenantUnknown, TooDeep, TooLarge)
"""What no retry can help, whoever says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential backoff with jitter; after the last try a message becomes a dead letter.

    With the defaults the tries of one message span about eight minutes.
    """

    tries: int = 15
    """How often a message is tried at all; 1 for no retry."""
    first: float = 0.2
    """Pause before the second try, seconds; it doubles with each further one."""
    most: float = 60.0
    """Longest pause, seconds."""
    jitter: float = 0.2
    """How far a pause may be off at random, as a share of it."""
    never: tuple[type[BaseException], ...] = ()
    """Errors of the handler after which no retry can help."""

    def __post_init__(self) -> None:
        try:
            fits = self.tries >= 1 and 0 < self.first <= self.most and 0 <= self.jitter < 1
        except TypeError:
            fits = False
        if not fits:
            raise DeclarationError(
                f"{self} can't be followed",
                hint="tries at least 1, 0 < first <= most, 0 <= jitter < 1",
            )

    def pause(self, failed: int) -> float:
        """Seconds to wait after the `failed`-th failure."""
        pause = min(self.most, self.first * 2.0 ** min(failed - 1, 64))
        return pause * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311

    def may_help(self, error: BaseException) -> bool:
        """Whether another try may succeed after this error.

        An error says no by its class being in `never`, or by an attribute `retry` that is false.
        """
        return getattr(error, "retry", True) and not isinstance(error, (*_HOPELESS, *self.never))
