"""Metrics with the real SDK and its reader in memory, in a process of their own each."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tenantry import metrics

READ = """
import json, sys
from opentelemetry import metrics as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tenantry import metrics

reader = InMemoryMetricReader()

def read():
    found = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = [
                    [dict(p.attributes), p.value if hasattr(p, "value") else p.count]
                    for p in metric.data.data_points
                ]
                found[metric.name] = {
                    "kind": type(metric.data).__name__, "unit": metric.unit, "points": points,
                    "monotonic": getattr(metric.data, "is_monotonic", None),
                }
    return found
"""


def run(program: str, **env: str) -> Any:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", READ + program], env=clean | env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


WITH_SDK = "otel.set_meter_provider(MeterProvider([reader]))\n"


def test_without_an_sdk_metrics_are_off() -> None:
    assert run("print(json.dumps(metrics.enabled()))") is False


def test_with_an_sdk_they_are_on() -> None:
    assert run(WITH_SDK + "print(json.dumps(metrics.enabled()))") is True


def test_a_counter_is_read() -> None:
    found = run(
        WITH_SDK
        + "metrics.observe(metrics.DECISIONS, lambda: [(3, {'tenantry.verdict': 'admitted'})])\n"
        + "print(json.dumps(read()))"
    )
    assert found["tenantry.router.decisions"] == {
        "kind": "Sum",
        "unit": "{message}",
        "points": [[{"tenantry.verdict": "admitted"}, 3]],
        "monotonic": True,
    }


def test_what_several_parts_read_is_summed() -> None:
    found = run(
        WITH_SDK
        + "for n in (3, 4): metrics.observe(metrics.RUNNING, lambda n=n: [(n, {})])\n"
        + "print(json.dumps(read()))"
    )
    assert found["tenantry.service.running"]["points"] == [[{}, 7]]


def test_what_is_forgotten_is_read_no_more() -> None:
    found = run(
        WITH_SDK
        + "metrics.observe(metrics.RUNNING, lambda: [(1, {})])()\n"
        + "print(json.dumps(read()))"
    )
    assert "tenantry.service.running" not in found


def test_a_duration_is_recorded() -> None:
    found = run(
        WITH_SDK
        + "metrics.histogram(metrics.QUEUEING)(0.2, {'tenantry.service': 'orders'})\n"
        + "print(json.dumps(read()))"
    )
    assert found["tenantry.queue.duration"]["kind"] == "Histogram"
    assert found["tenantry.queue.duration"]["points"] == [[{"tenantry.service": "orders"}, 1]]


def test_an_sdk_that_comes_later_is_fed_too() -> None:
    found = run(
        "metrics.observe(metrics.RUNNING, lambda: [(1, {})])\n"
        + WITH_SDK
        + "print(json.dumps(read()))"
    )
    assert found["tenantry.service.running"]["points"] == [[{}, 1]]


ROUTER = """
from collections import Counter
from tenantry.runtime.tallies import TallyBook
from tenantry_workers.router.metrics import RouterMetrics

class Leases:
    class counters:
        calls, failures, leased, credit, returned, parked = 7, 2, 70, 1, 3, 4
    away = True

book = TallyBook()
for name in ("acme", "acme", "globex"):
    book.admitted(name)
RouterMetrics(Counter(admitted=3, rate_limited=2, ignored=1), book, Leases()).start()
print(json.dumps(read()))
"""


def test_a_router_tells_its_decisions_with_their_reasons() -> None:
    points = run(WITH_SDK + ROUTER)["tenantry.router.decisions"]["points"]
    assert sorted(points, key=lambda point: point[1]) == [
        [{"tenantry.verdict": "ignored"}, 1],
        [{"tenantry.verdict": "refused", "tenantry.reason": "rate_limited"}, 2],
        [{"tenantry.verdict": "admitted"}, 3],
    ]


def test_a_router_tells_what_it_leases() -> None:
    found = run(WITH_SDK + ROUTER)
    assert found["tenantry.redis.up"]["points"] == [[{}, 0.0]]
    assert [{"tenantry.outcome": "failed"}, 2] in found["tenantry.lease.calls"]["points"]
    assert [{"tenantry.lease": "leased"}, 70] in found["tenantry.lease.messages"]["points"]


def test_no_tenant_is_an_attribute_by_default() -> None:
    assert "acme" not in json.dumps(run(WITH_SDK + ROUTER))


def test_the_busiest_tenants_are_where_the_environment_asks_for_them() -> None:
    found = run(WITH_SDK + ROUTER, TENANTRY_METRICS_TENANTS="1")
    assert found["tenantry.tenant.rate"]["points"] == [[{"tenant.id": "acme"}, 2.0]]


def test_a_wrong_number_of_tenants_is_an_error() -> None:
    text = "try: RouterMetrics({}, TallyBook())\nexcept Exception as e: print(json.dumps(str(e)))"
    program = ROUTER.partition("class")[0] + text
    assert run(program, TENANTRY_METRICS_TENANTS="many").startswith("TENANTRY_METRICS_TENANTS is")


AUDIT = """
import asyncio, structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from tenantry.bus import Bus
from tenantry.runtime import audit

audit._TIMEOUT = 0.2

async def main():
    kept = audit.Audit(Bus(["nats://127.0.0.1:1"], patience=0.1), "orders", "1")
    await kept.start()
    before = read()
    kept.refused("bad_context", victim="acme")
    kept.refused("bad_context", victim="acme")
    while not kept.lost:
        await asyncio.sleep(0.01)
    print(json.dumps([before, read()]))
    await kept.stop()

asyncio.run(main())
"""


def test_what_looks_like_an_attack_is_counted_by_kind_from_nought_on() -> None:
    name = "tenantry.security.refusals"
    before, after = (dict(map(_kind_and_count, found[name]["points"])) for found in audited())
    assert before["bad_context"] == 0
    assert after == before | {"bad_context": 2}


def test_what_could_not_be_written_down_is_counted() -> None:
    _, after = audited()
    counts = dict(map(_kind_and_count, after["tenantry.audit.lost"]["points"]))
    assert (counts["bad_context"], counts["no_credentials"]) == (2, 0)


@functools.cache
def audited() -> Any:
    return run(WITH_SDK + AUDIT)


def _kind_and_count(point: Any) -> tuple[str, int]:
    return point[0]["tenantry.reason"], point[1]


def test_every_instrument_has_a_name_of_its_own() -> None:
    names = [metric.name for metric in metrics.ALL]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("metric", metrics.ALL, ids=lambda metric: metric.name)
def test_only_histograms_have_bounds(metric: metrics.Metric) -> None:
    assert bool(metric.bounds) == (metric.kind == "histogram")
