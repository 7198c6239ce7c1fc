from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from tenantry_workers.router.limits.shared import SharedLimiter
from tenantry_workers.router.limits.store import Store

Join = Callable[..., object]


@pytest.fixture
async def limiters() -> AsyncIterator[Callable[..., object]]:
    """Starts `count` limiters of as many routers on a URL: `await limiters(url, 3)`."""
    async with AsyncExitStack() as stack:

        async def start(url: str, count: int = 1, patience: float = 10.0) -> list[SharedLimiter]:
            made = [
                SharedLimiter(Store(url), lambda: count, patience=patience) for _ in range(count)
            ]
            for limiter in made:
                stack.push_async_callback(limiter.stop)
                await limiter.start()
            return made

        yield start
