"""Two tenants at work in a process of its own with an OpenTelemetry SDK; prints what it told.

Each tenant's canary is in bodies, headers, ids and in what its handlers raise. The SDK can be set
up once in a process and never taken away, hence the process of its own.
Usage: python -m tests.isolation.telling URL HOME FOLDER
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Literal, cast

import structlog
from msgspec import Struct
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenantry import Context, Retry, Service, errors, logs
from tenantry_workers.router import RouterWorker
from tenantry_workers.tenants import TenantsWorker
from tests import services
from tests.integration.mesh.traced import Place
from tests.mesh import Mesh, Program, eventually
from tests.servers import NatsBackend
from tests.services import Note

SECRET = "canary-body"
RAISED = "canary-raised"
LOGGED = "canary-logged"

telling = Service("telling", version="1.0.0")


class Choice(Struct, frozen=True):
    """One of two words."""

    word: Literal["yes", "no"]


@telling.request("fail", public=True)
async def fail(_ctx: Context, note: Note) -> None:
    """Fail with a text of the tenant's own, over a local variable with the body."""
    text = note.text
    assert text
    raise RuntimeError(f"{RAISED}-{note.count}")


@telling.command("fail_stored", public=True, retry=Retry(tries=1))
async def fail_stored(_ctx: Context, note: Note) -> None:
    """The same by a command."""
    raise RuntimeError(f"{RAISED}-{note.count}")


@telling.command("choose", public=True, retry=Retry(tries=1))
async def choose(_ctx: Context, choice: Choice) -> None:
    """Take one of two words: what is neither is quoted by whoever refuses it."""


@telling.request("log", public=True)
async def log(ctx: Context, note: Note) -> None:
    """Log a text of the tenant's own, after others had time for theirs."""
    await asyncio.sleep(0.001)
    ctx.log.info("told", what=f"{LOGGED}-{note.count}")


async def work(program: Program, number: int) -> None:
    """All kinds of messages, good ones and bad ones."""
    body = {"text": f"{SECRET}-{number}", "count": number}
    fields = {"X-Own": f"{SECRET}-{number}", "Nats-Msg-Id": f"{SECRET}-{number}"}
    for action in (
        *("notes.echo", "notes.emit", "notes.relay", "telling.fail", "telling.log"),
        *("nobody.nothing", "notes.bad"),
    ):
        await program.ask(action, body, headers=fields)
    await program.ask("notes.echo", {"text": {"no": f"{SECRET}-{number}"}}, headers=fields)
    await program.ask("notes.echo", b'{"text": "%s-%d' % (SECRET.encode(), number))
    for action in ("notes.remember", "telling.fail_stored"):
        with contextlib.suppress(errors.Rejection):
            await program.client.publish(action, body)
    await program.client.publish("telling.choose", {"word": f"{SECRET}-{number}"})
    await program.client.publish("notes.remember", {"text": [f"{SECRET}-{number}"]})


async def act(mesh: Mesh, reader: InMemoryMetricReader) -> dict[str, str]:
    """Tenants by their number."""
    async with mesh.program() as acme, mesh.program() as globex:
        await mesh.ready(acme, "telling.fail")
        each = (acme, globex)
        await asyncio.gather(*(work(p, n) for _ in range(3) for n, p in enumerate(each)))

        async def given_up() -> bool:
            letters = measured(reader).get("tenantry.dead_letters", [])
            return {"telling", "notes"} <= {each["tenantry.service"] for each in letters}

        await eventually(given_up)
        return {str(number): program.id for number, program in enumerate(each)}


def measured(reader: InMemoryMetricReader) -> dict[str, list[dict[str, str]]]:
    """The attributes of every point, by metric."""
    data = reader.get_metrics_data()
    return {
        metric.name: [
            {key: str(value) for key, value in (point.attributes or {}).items()}
            for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def main(url: str, home: str, folder: str) -> None:
    logs.configure(level="debug", json=True)
    told = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(told))
    exporter, reader, provider = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    mesh = Mesh(cast("NatsBackend", Place(url, Path(home))), Path(folder))
    mesh.start(TenantsWorker(mesh.options()))
    mesh.start(RouterWorker(mesh.options()))
    mesh.start(mesh.worker(services.notes, services.followers, telling))
    tenants = asyncio.run(act(mesh, reader))
    figures = measured(reader)
    mesh.close()
    spans = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    print(json.dumps({"tenants": tenants, "logs": lines, "spans": spans, "metrics": figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
