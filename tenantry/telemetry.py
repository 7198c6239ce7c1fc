"""Setting up OpenTelemetry for a program of this project, where its user asks for it.

The `OTEL_*` variables of the specification decide; without one of them nothing is set up and no
OpenTelemetry code runs for a message. A program that sets up an SDK itself need not call this.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tenantry.errors import SetupError

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def configure(name: str) -> Callable[[], None]:
    """Set up tracing as the environment says; returns what flushes it at the end.

    `OTEL_TRACES_EXPORTER` is `otlp` (the default when an endpoint is given), `console` or `none`;
    `name` is the service name unless `OTEL_SERVICE_NAME` gives one. Raises :class:`SetupError`
    when the SDK is asked for and not installed.
    """
    exporter = os.environ.get(_EXPORTER, "otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none")
    if exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return _nothing
    if exporter not in ("otlp", "console"):
        raise SetupError(f"{_EXPORTER} is {exporter!r}", hint="set it to otlp, console or none")
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            ConsoleSpanExporter,
            SpanExporter,
        )

        os.environ.setdefault("OTEL_SERVICE_NAME", name)
        chosen: SpanExporter
        if exporter == "console":
            chosen = ConsoleSpanExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            chosen = OTLPSpanExporter()
    except ImportError as error:
        raise SetupError(
            f"tracing is asked for, but {error.name} is not installed",
            hint="pip install 'tenantry[otel]'",
        ) from None
    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(BatchSpanProcessor(chosen))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _nothing() -> None:
    pass
