"""A mesh in a process of its own with an OpenTelemetry SDK; prints its spans and its metrics.

The SDK can be set up once in a process and never taken away, hence the process of its own.
Usage: python -m tests.integration.mesh.traced URL HOME FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, cast

import structlog
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenantry import errors
from tenantry_workers.router import RouterWorker
from tenantry_workers.tenants import TenantsWorker
from tests import services
from tests.mesh import Mesh, eventually
from tests.servers import NatsBackend

READER = InMemoryMetricReader()


class Place:
    """Where a server is that somebody else has started."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home


async def act(mesh: Mesh) -> dict[str, str]:
    """One of each kind of message; returns which trace was which."""
    async with mesh.program() as acme:
        traces: dict[str, str] = {}

        async def followed(texts: list[str]) -> None:
            async def check() -> bool:
                return await acme.texts("followers") == texts

            await eventually(check)

        async def within(name: str, work: Any) -> None:
            with trace.get_tracer("test").start_as_current_span(name) as span:
                traces[name] = f"{span.get_span_context().trace_id:032x}"
                await work

        await within("request", acme.client.request("notes.emit", {"text": "x", "count": 1}))
        await followed(["x0"])
        await within("command", acme.client.publish("notes.stumble", {"text": "y"}))
        await followed(["x0", "y"])
        await within("relay", acme.client.request("notes.relay", {"text": "z"}))
        for how in ("raise", "reject"):
            try:
                await within(how, acme.client.request("notes.bad", {"text": how}))
            except errors.Rejection as rejection:
                traces[f"{how}.instance"] = str(rejection.extensions["instance"])
        await acme.client.publish("notes.remember", [])  # a dead letter
        await eventually(given_up)
    return traces


async def given_up() -> bool:
    return "tenantry.dead_letters" in measured()


def measured() -> dict[str, Any]:
    """The metrics by name: of each point the attributes, and its value or count."""
    data = READER.get_metrics_data()
    return {
        metric.name: [
            (dict(point.attributes or {}), getattr(point, "value", getattr(point, "count", None)))
            for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def as_json(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{context.trace_id:032x}",
        "id": f"{context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
    }


def main(url: str, home: str, folder: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([READER]))
    mesh = Mesh(cast("NatsBackend", Place(url, Path(home))), Path(folder))
    mesh.start(TenantsWorker(mesh.options()))
    mesh.start(RouterWorker(mesh.options()))
    mesh.start(mesh.worker(services.notes, services.followers))
    traces = asyncio.run(act(mesh))
    figures = measured()
    mesh.close()
    spans = [as_json(span) for span in exporter.get_finished_spans()]
    print(json.dumps({"traces": traces, "spans": spans, "metrics": figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
