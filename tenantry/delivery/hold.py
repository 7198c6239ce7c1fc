"""How a partition is held: what its owner tells those who work for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The answers to whether a partition is ours, lost, or in doubt."""

    lost: Callable[[], bool]
    """True if it is certainly another's."""
    ours: Callable[[], bool]
    """True if it is certainly ours."""
    wait: Callable[[], Awaitable[bool]]
    """Waits while that is in doubt; false where it is lost."""
    claim: object = field(default_factory=object)
    """Stands for the claim that it is held by."""
