"""Setting up OpenTelemetry for a program of this project, where its user asks for it.

The `OTEL_*` variables of the specification decide; without one of them nothing is set up and no
OpenTelemetry code runs for a message. A program that sets up an SDK itself need not call this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import quote

from tenantry.errors import SetupError

_RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def configure(name: str, version: str = "") -> Callable[[], None]:
    """Set up traces and metrics as the environment says; returns what flushes them at the end.

    `OTEL_TRACES_EXPORTER` and `OTEL_METRICS_EXPORTER` are `otlp` (the default when an endpoint is
    given), `console` or `none`. `service.name` is `name`, `service.namespace` is `tenantry` and
    `service.version` is `version`, unless `OTEL_RESOURCE_ATTRIBUTES` or `OTEL_SERVICE_NAME` say
    otherwise. Raises :class:`SetupError` when the SDK is asked for and not installed.
    """
    wanted = {signal: _exporter(signal) for signal in ("TRACES", "METRICS")}
    if set(wanted.values()) == {"none"} or _disabled():
        return _nothing
    ours = {"service.name": name, "service.namespace": "tenantry", "service.version": version}
    attributes = [f"{key}={quote(value)}" for key, value in ours.items() if value]
    # Of two values for a key the later one counts: the user's own.
    own = os.environ.get(_RESOURCE, "")
    os.environ[_RESOURCE] = ",".join([*attributes, own] if own else attributes)
    try:
        ends = [
            setup(exporter)
            for setup, exporter in ((_traces, wanted["TRACES"]), (_metrics, wanted["METRICS"]))
            if exporter != "none"
        ]
    except ImportError as error:
        raise SetupError(
            f"telemetry is asked for, but {error.name} is not installed",
            hint="pip install 'tenantry[otel]'",
        ) from None

    def flush() -> None:
        for end in ends:
            end()

    return flush


def _traces(exporter: str) -> Callable[[], None]:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SpanExporter,
    )

    chosen: SpanExporter
    if exporter == "console":
        chosen = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        chosen = OTLPSpanExporter()
    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(BatchSpanProcessor(chosen))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _metrics(exporter: str) -> Callable[[], None]:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        MetricExporter,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.resources import Resource

    chosen: MetricExporter
    if exporter == "console":
        chosen = ConsoleMetricExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        chosen = OTLPMetricExporter()
    provider = MeterProvider([PeriodicExportingMetricReader(chosen)], resource=Resource.create())
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _exporter(signal: str) -> str:
    """Which exporter the environment names for a signal. Raises :class:`SetupError`."""
    variable = f"OTEL_{signal}_EXPORTER"
    endpoints = (_ENDPOINT, f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    exporter = os.environ.get(variable) or (
        "otlp" if any(map(os.environ.get, endpoints)) else "none"
    )
    if exporter not in ("otlp", "console", "none"):
        raise SetupError(f"{variable} is {exporter!r}", hint="set it to otlp, console or none")
    return exporter


def _disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"


def _nothing() -> None:
    pass
