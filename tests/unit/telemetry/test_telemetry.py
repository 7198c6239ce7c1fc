"""Tracing is set up where the environment asks for it, and only there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tenantry import telemetry
from tenantry.errors import SetupError

PROGRAM = """
from tenantry import metrics, telemetry
from tenantry.wire import trace
flush = telemetry.configure("greeter", "1.2.3")
with trace.span("greet", trace.KIND_SERVER, None, {}):
    pass
metrics.observe(metrics.RUNNING, lambda: [(1, {})])
print("enabled" if trace.enabled() else "disabled")
flush()
"""


def run(**env: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | env, capture_output=True, text=True, check=True
    ).stdout


def test_nothing_is_set_up_by_default() -> None:
    assert run() == "disabled\n"


def test_the_console_gets_the_spans_with_the_service_name() -> None:
    out = run(OTEL_TRACES_EXPORTER="console")
    assert '"service.name": "greeter"' in out


def test_the_users_service_name_stays() -> None:
    out = run(OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine")
    assert '"service.name": "mine"' in out


def test_the_service_has_a_namespace_and_a_version() -> None:
    out = run(OTEL_TRACES_EXPORTER="console")
    assert '"service.namespace": "tenantry"' in out
    assert '"service.version": "1.2.3"' in out


def test_the_users_own_attributes_stay() -> None:
    out = run(
        OTEL_TRACES_EXPORTER="console",
        OTEL_RESOURCE_ATTRIBUTES="service.name=mine,service.namespace=shop,zone=a",
    )
    assert '"service.name": "mine"' in out
    assert '"service.namespace": "shop"' in out
    assert '"zone": "a"' in out


def test_a_disabled_sdk_stays_so() -> None:
    assert run(OTEL_TRACES_EXPORTER="console", OTEL_SDK_DISABLED="true") == "disabled\n"


def test_traces_alone_set_up_no_metrics() -> None:
    assert "tenantry.service.running" not in run(OTEL_TRACES_EXPORTER="console")


def test_the_console_gets_the_metrics_with_the_service_name() -> None:
    out = run(OTEL_METRICS_EXPORTER="console")
    assert "tenantry.service.running" in out
    assert '"service.name": "greeter"' in out


def test_metrics_alone_set_up_no_traces() -> None:
    assert "disabled\n" in run(OTEL_METRICS_EXPORTER="console")


def test_a_disabled_sdk_measures_nothing() -> None:
    out = run(OTEL_METRICS_EXPORTER="console", OTEL_SDK_DISABLED="true")
    assert out == "disabled\n"


@pytest.mark.parametrize("signal", ["TRACES", "METRICS"])
def test_an_unknown_exporter_is_told(monkeypatch: pytest.MonkeyPatch, signal: str) -> None:
    monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "pigeon")
    with pytest.raises(SetupError, match="pigeon"):
        telemetry.configure("greeter")
