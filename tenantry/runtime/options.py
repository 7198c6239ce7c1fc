"""What every worker is started with, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tenantry.errors import SetupError
from tenantry.operator import OperatorHome
from tenantry.operator.generations import require_current
from tenantry.runtime.worker import DRAIN
from tenantry.service.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker reaches NATS, and how long it may take to stop (seconds)."""

    servers: tuple[str, ...]
    creds: Path | None = None
    home: Path | None = None
    """The operator's directory, for workers of the control plane that sign."""
    drain: float = DRAIN
    redis: str | None = None
    """The URL of the Redis or Valkey that routers share; without it each keeps to its part."""
    server_log: Path | None = None
    """The log of a nats-server on this machine, where the tenants worker finds violations."""

    def operator_home(self) -> OperatorHome:
        """The operator's directory; raises :class:`SetupError` for none, or an old one."""
        if self.home is None:
            raise SetupError(
                "this worker needs the operator's directory",
                hint="give --home DIR, as `tenantry nats init DIR` made it",
            )
        return require_current(OperatorHome.load(self.home))


class Runnable(Protocol):
    """A worker that ships as a whole: an entry point of the group `tenantry.workers`."""

    def __init__(self, options: WorkerOptions) -> None: ...

    @classmethod
    def declared(cls) -> Service:
        """The platform service it runs: its requests, and the events it publishes."""
        ...

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None]) -> None:
        """Serve until `stop` is set; call `ready` when serving has begun."""
        ...
