"""The metrics of one service in one instance: its counters, for OpenTelemetry to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tenantry import metrics
from tenantry.delivery.lanes import Lanes
from tenantry.metrics import Attributes
from tenantry.runtime.stats import Stats
from tenantry.service.service import Service

_SYSTEM = {"messaging.system": "nats"}
_PROCESS = {**_SYSTEM, "messaging.operation.name": "process", "messaging.operation.type": "process"}


class ServiceMetrics:
    """Reads the counts of a service, and those of its lanes."""

    def __init__(self, service: Service, stats: Stats, lanes: Lanes) -> None:
        self._service = service
        self._stats = stats
        self._lanes = lanes
        self._own: Attributes = {metrics.SERVICE: service.name}
        self._forget: list[Callable[[], None]] = []
        self._templates: dict[str, str] = {}

    def start(self) -> None:
        """Be read, and be told each duration; nothing where no SDK is set up."""
        if not metrics.enabled():
            return
        stats = self._stats
        self._templates = {
            handler.name: f"{'request' if handler.kind == 'request' else 'tenant'}.*.{handler.name}"
            for handler in (*self._service.handlers.values(), *self._service.durable.values())
        }
        self._forget = [
            metrics.observe(metrics.RUNNING, lambda: [(stats.running, self._own)]),
            metrics.observe(metrics.SLOTS, lambda: [(stats.slots, self._own)]),
            metrics.observe(metrics.LAG, lambda: [(self._lanes.lag(), self._own)]),
            metrics.observe(metrics.CONSUMED, self._consumed),
            metrics.observe(metrics.REFUSED, lambda: self._reasons(stats.refused)),
            metrics.observe(metrics.UNKNOWN, self._unknown),
            metrics.observe(metrics.DEAD, lambda: self._reasons(self._lanes.dead())),
        ]
        self._process = metrics.histogram(metrics.PROCESSING)
        self._queue = metrics.histogram(metrics.QUEUEING)
        stats.processed, stats.queued = self._processed, self._queued

    def stop(self) -> None:
        """Be read no more."""
        self._stats.processed = self._stats.queued = None
        for forget in self._forget:
            forget()

    def _processed(self, name: str, seconds: float, error: str) -> None:
        attributes = {**_PROCESS, "messaging.destination.template": self._template(name)}
        if error:
            attributes["error.type"] = error
        self._process(seconds, attributes)

    def _queued(self, seconds: float) -> None:
        self._queue(seconds, self._own)

    def _consumed(self) -> Iterable[tuple[float, Attributes]]:
        for name, counts in list(self._stats.actions.items()):
            yield (
                counts.requests,
                {
                    **_SYSTEM,
                    "messaging.operation.name": "process",
                    "messaging.destination.template": self._template(name),
                },
            )

    def _reasons(self, counts: dict[str, int]) -> Iterable[tuple[float, Attributes]]:
        return [(count, {**self._own, metrics.REASON: why}) for why, count in list(counts.items())]

    def _unknown(self) -> Iterable[tuple[float, Attributes]]:
        for name, count in list(self._stats.unknown.items()):
            yield count, {**self._own, metrics.ACTION: name}

    def _template(self, name: str) -> str:
        return self._templates.get(name, name)
