"""`$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`: the NATS service protocol (ADR-32)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from tenantry import subjects
from tenantry.bus import Bus, Message, Subscription
from tenantry.runtime.stats import Stats
from tenantry.service.handler import Handler
from tenantry.service.service import Service
from tenantry.wire import codec

_TYPE = "io.nats.micro.v1.{}_response"


class Discovery:
    """Answers for one service in one instance."""

    def __init__(
        self,
        bus: Bus,
        service: Service,
        instance: str,
        stats: Stats,
        about: Callable[[], dict[str, str]],
    ) -> None:
        self._bus = bus
        self._service = service
        self._instance = instance
        self._stats = stats
        self._about = about
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Listen on the nine subjects of the protocol."""
        for verb in ("PING", "INFO", "STATS"):
            for rest in ("", f".{self._service.name}", f".{self._service.name}.{self._instance}"):
                self._subscriptions.append(
                    await self._bus.subscribe(f"$SRV.{verb}{rest}", self._answer)
                )

    async def stop(self) -> None:
        """Answer no more."""
        for subscription in self._subscriptions:
            await subscription.stop()

    async def _answer(self, message: Message) -> None:
        verb = message.subject.split(".")[1].lower()
        body: dict[str, Any] = {
            "type": _TYPE.format(verb),
            "name": self._service.name,
            "id": self._instance,
            "version": self._service.version,
            "metadata": {"tenantry": "1", **self._about()},
        }
        if verb == "info":
            body |= {"description": self._service.description, "endpoints": self._endpoints()}
        elif verb == "stats":
            if self._stats.unknown:
                body["metadata"]["unknown"] = codec.encode(self._stats.unknown).decode()
            started = dt.datetime.fromtimestamp(self._stats.started, dt.UTC)
            # With `Z`: RFC 3339 takes an offset too, but not every client does.
            stamp = started.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            body |= {"started": stamp, "endpoints": self._figures()}
            body["metadata"]["slots"] = str(self._stats.slots)
        await self._bus.answer(message, codec.encode(body))

    def _endpoints(self) -> list[dict[str, Any]]:
        return [
            {
                "name": handler.action if follows is None else follows,
                "subject": subject,
                "queue_group": self._service.name,
                "metadata": {"kind": handler.kind, "public": str(handler.public).lower()},
            }
            for handler, follows, subject in self._all()
        ]

    def _figures(self) -> list[dict[str, Any]]:
        rows = []
        for handler, follows, subject in self._all():
            counts = self._stats.of(handler.name)
            rows.append(
                {
                    "name": handler.action if follows is None else follows,
                    "subject": subject,
                    "queue_group": self._service.name,
                    "num_requests": counts.requests,
                    "num_errors": counts.errors,
                    "last_error": counts.last_error,
                    "processing_time": counts.processing,
                    "average_processing_time": counts.processing // max(1, counts.requests),
                }
            )
        return rows

    def _all(self) -> list[tuple[Handler, str | None, str]]:
        service = self._service
        rows: list[tuple[Handler, str | None, str]] = []
        for handler in service.handlers.values():
            if service.platform:
                subject = subjects.platform(service.name, handler.action)
            elif handler.kind == "request":
                subject = subjects.requests(service.name, handler.action)
            else:
                subject = f"tenant.*.{handler.name}"
            rows.append((handler, None, subject))
        for name, handler in service.followers.items():
            rows.append((handler, f"on_{name.replace('.', '_')}", f"tenant.*.{name}"))
        return rows
