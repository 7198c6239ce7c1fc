"""The durable consumer behind a lane, as the server knows it: its counts, and who is pinned."""

from __future__ import annotations

import contextlib
from typing import Any

from tenantry import streams
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import JetStreamError, Rejection
from tenantry.runtime import journal


class Consumer:
    """One lane's consumer."""

    def __init__(self, bus: Bus, service: str, partition: int) -> None:
        self.name = journal.lane_name(service, partition)
        self._bus = bus

    async def info(self, *, timeout: float = 5.0) -> dict[str, Any]:
        """What the server says of it. Raises :class:`JetStreamError`, :class:`Rejection`."""
        path = f"CONSUMER.INFO.{streams.JOURNAL}.{self.name}"
        return await js.api(self._bus, path, timeout=timeout)

    async def delivered(self) -> int:
        """The highest sequence that it has delivered to anybody."""
        return int((await self.info())["delivered"]["stream_seq"])

    async def floor(self) -> int:
        """The sequence up to which everything is acknowledged."""
        return int((await self.info())["ack_floor"]["stream_seq"])

    async def outstanding(self) -> int:
        """How many messages are delivered and not acknowledged."""
        return int((await self.info())["num_ack_pending"])

    async def mark(self, names: frozenset[str]) -> int:
        """Note that no order binds these actions from now on; returns the last it still may."""
        info = await self.info()
        config, kept = info["config"], journal.Unordered.of(info["config"])
        if not names <= kept.names:
            kept = journal.Unordered(names, int(info["delivered"]["stream_seq"]))
            config["metadata"] = {**config.get("metadata", {}), **kept.metadata()}
            await js.ensure_consumer(self._bus, streams.JOURNAL, config)
        return kept.mark

    async def pinned(self) -> str:
        """The pin that the server has given to some reader of this lane, if any."""
        with contextlib.suppress(Rejection, JetStreamError):
            groups = (await self.info(timeout=1.0)).get("priority_groups") or [{}]
            return str(groups[0].get("pinned_client_id", ""))
        return ""

    async def let_go(self, mine: str, before: str) -> None:
        """Give up the pin, whether we knew of it or not; `before` is who had it as we left.

        Our last pulls stand in the server's queue until they expire, and one of them may get the
        pin though nobody listens there any more. Asking for the pin also clears them out.
        """
        pinned = await self.pinned()
        if pinned and (pinned == mine or pinned != before):
            with contextlib.suppress(Rejection, JetStreamError):
                await js.api(
                    self._bus,
                    f"CONSUMER.UNPIN.{streams.JOURNAL}.{self.name}",
                    {"group": journal.GROUP},
                    timeout=1.0,
                )
