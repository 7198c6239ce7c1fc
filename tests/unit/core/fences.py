"""Fences for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenantry.context.fence import Fence


def fence(seq: int = 0, *, lost: Callable[[], bool] = lambda: False, **more: Any) -> Fence:
    """A fence that is ours as long as it is not lost."""

    async def ours() -> bool:
        return not lost()

    return Fence(lost, ours, seq=seq, **more)
