"""Ending tasks for sure."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN = 1.0


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel these tasks and return when they have ended; what they raise is not raised here.

    A cancellation can be swallowed on its way (nats-py does, while it flushes), so it is repeated.
    Unlike `suppress(CancelledError)` around `await task`, this lets the caller be cancelled.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)
    for ended in tasks:
        if ended is not None and not ended.cancelled():
            ended.exception()  # seen: nobody wants to know any more
