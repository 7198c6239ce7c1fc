"""OpenTelemetry metrics: every instrument there is, and the one way to feed it.

Most are read, not written: a message changes a plain counter, at which the SDK's reader looks when
it collects. Without an SDK nothing is looked at. No attribute names a tenant: the SDK folds what is
beyond 2,000 attribute sets of an instrument into one, and a mesh may have more tenants than that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from opentelemetry import metrics as otel
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.util.types import AttributeValue

Attributes = Mapping[str, AttributeValue]
Read = Callable[[], Iterable[tuple[float, Attributes]]]
"""Reads a counter or gauge: values with their attributes."""

VERDICT = "tenantry.verdict"
REASON = "tenantry.reason"
SERVICE = "tenantry.service"
OUTCOME = "tenantry.outcome"
ACTION = "tenantry.action"
LEASE = "tenantry.lease"

_WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""As the semantic conventions have it."""


class Metric(NamedTuple):
    """One instrument."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    description: str
    bounds: tuple[float, ...] = ()
    """Of a histogram's buckets, in its unit."""


DECISIONS = Metric(
    "tenantry.router.decisions",
    "counter",
    "{message}",
    "Messages of the edge by what the router decided, and why",
)
REDIS_UP = Metric(
    "tenantry.redis.up",
    "gauge",
    "",
    "Whether the router's limiter reaches Redis (1), or goes on alone (0)",
)
LEASE_CALLS = Metric(
    "tenantry.lease.calls", "counter", "{call}", "The limiter's calls of Redis by how they ended"
)
LEASE_MESSAGES = Metric(
    "tenantry.lease.messages",
    "counter",
    "{message}",
    "Messages' worth of budget: leased, returned, on credit, or waited for (parked)",
)
TENANT_RATE = Metric(
    "tenantry.tenant.rate",
    "gauge",
    "{message}/s",
    "Messages a second of the busiest tenants; only where TENANTRY_METRICS_TENANTS asks for it",
)
QUEUEING = Metric(
    "tenantry.queue.duration",
    "histogram",
    "s",
    "How long a message waited here for its handler",
    _WAITS,
)
PROCESSING = Metric(
    "messaging.process.duration",
    "histogram",
    "s",
    "Duration of processing operation.",
    _DURATIONS,
)
CONSUMED = Metric(
    "messaging.client.consumed.messages",
    "counter",
    "{message}",
    "Number of messages that were delivered to the application.",
)
RUNNING = Metric("tenantry.service.running", "gauge", "{message}", "Messages in hand")
SLOTS = Metric(
    "tenantry.service.slots",
    "gauge",
    "{message}",
    "Messages that may run at once; fewer while an adaptive service is slow",
)
REFUSED = Metric(
    "tenantry.service.refused", "counter", "{message}", "Requests that got no slot, by why"
)
UNKNOWN = Metric(
    "tenantry.service.unknown_actions",
    "counter",
    "{message}",
    "Commands and requests of handlers that were refused: no service has declared their action so",
)
DEAD = Metric("tenantry.dead_letters", "counter", "{message}", "Dead letters by reason")
SECURITY = Metric(
    "tenantry.security.refusals",
    "counter",
    "{refusal}",
    "Refusals that look like attacks, by kind",
)
AUDIT_LOST = Metric(
    "tenantry.audit.lost",
    "counter",
    "{refusal}",
    "Refusals that look like attacks and could not be written into the stream AUDIT",
)
LOG_LOST = Metric(
    "tenantry.log.lost", "counter", "{line}", "Lines of the log that could not be written"
)
LAG = Metric(
    "tenantry.lane.lag",
    "gauge",
    "{message}",
    "Messages of the journal that wait for this instance, as the last one it got told",
)
JOURNAL_STORES = Metric(
    "tenantry.journal.stores",
    "gauge",
    "",
    "Whether the journal stored the last probe (1), or not (0), as each tenants worker found",
)
JOURNAL_USED = Metric(
    "tenantry.journal.used",
    "gauge",
    "1",
    "How much of what the journal may hold is used, 0 to 1; routers refuse commands above 0.95",
)

CLOCK = Metric(
    "tenantry.clock.offset",
    "gauge",
    "s",
    "Seconds by which the clock of this process is ahead of nats-server's",
)

ALL = (
    *(DECISIONS, REDIS_UP, LEASE_CALLS, LEASE_MESSAGES, TENANT_RATE),
    *(QUEUEING, PROCESSING, CONSUMED, RUNNING, SLOTS, REFUSED, UNKNOWN, DEAD, LAG),
    *(SECURITY, AUDIT_LOST, LOG_LOST, CLOCK, JOURNAL_STORES, JOURNAL_USED),
)

_readers: dict[str, dict[object, Read]] = defaultdict(dict)
_observed: set[str] = set()


def enabled() -> bool:
    """Whether the program has set up an OpenTelemetry SDK for metrics."""
    # The API's own stand-in, whose class it does not export.
    return type(otel.get_meter_provider()).__name__ != "_ProxyMeterProvider"


def observe(metric: Metric, read: Read) -> Callable[[], None]:
    """Let a counter or gauge be read; what is returned ends it.

    Where several parts of a process read the same attributes, their sum is told.
    """
    if metric.name not in _observed:
        _observed.add(metric.name)
        meter = otel.get_meter("tenantry")
        make = (
            meter.create_observable_counter
            if metric.kind == "counter"
            else meter.create_observable_gauge
        )
        make(
            metric.name,
            callbacks=[_callback(metric.name)],
            unit=metric.unit,
            description=metric.description,
        )
    key = object()
    _readers[metric.name][key] = read

    def forget() -> None:
        _readers[metric.name].pop(key, None)

    return forget


def histogram(metric: Metric) -> Callable[[float, Attributes], None]:
    """What records a duration, seconds."""
    made = otel.get_meter("tenantry").create_histogram(
        metric.name,
        unit=metric.unit,
        description=metric.description,
        explicit_bucket_boundaries_advisory=metric.bounds,
    )
    return made.record


def _callback(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def collect(_options: CallbackOptions) -> Iterable[Observation]:
        sums: dict[frozenset[tuple[str, AttributeValue]], float] = defaultdict(int)
        for read in list(_readers[name].values()):
            for value, attributes in read():
                sums[frozenset(attributes.items())] += value
        return [Observation(value, dict(key)) for key, value in sums.items()]

    return collect
