"""Logs, spans and metrics: what they say of a tenant is its own, and never a body or a proof."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tenantry.operator import OperatorHome
from tests import covered
from tests.isolation import telling
from tests.isolation.cases import Layer, can, cannot
from tests.servers import NatsServers

ROOT = Path(__file__).parents[2]
TOKEN = re.compile(r"eyJ[\w-]{20,}|S[UAO][A-Z2-7]{50,}")
"""A signed context or JWT, and a seed."""


@dataclass(frozen=True)
class Told:
    """What two tenants' messages have left behind, tenants by number."""

    tenants: dict[str, str]
    logs: list[dict[str, Any]]
    spans: list[dict[str, Any]]
    metrics: dict[str, list[dict[str, str]]]

    def with_text(self, text: str) -> list[dict[str, Any]]:
        """The log lines that a text is in."""
        return [line for line in self.logs if text in json.dumps(line)]


@pytest.fixture(scope="module")
def told(nats_backend: NatsServers, tmp_path_factory: pytest.TempPathFactory) -> Told:
    backend = nats_backend(OperatorHome.create)
    folder = tmp_path_factory.mktemp("telling")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.isolation.telling"),
            *(backend.url, str(backend.home), str(folder)),
        ],
        cwd=ROOT,
        env=covered.environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return Told(**json.loads(done.stdout))


@cannot(47, Layer.RUNTIME)
@pytest.mark.parametrize("text", [telling.RAISED, telling.LOGGED])
def test_what_a_tenants_handler_says_is_logged_under_no_other(told: Told, text: str) -> None:
    for number in told.tenants:
        others = [each for key, each in told.tenants.items() if key != number]
        for line in told.with_text(f"{text}-{number}"):
            assert not any(f'"{other}"' in json.dumps(line) for other in others)


@can(47)
@pytest.mark.parametrize("text", [telling.RAISED, telling.LOGGED])
def test_what_a_tenants_handler_says_is_logged_under_its_own(told: Told, text: str) -> None:
    for number, tenant in told.tenants.items():
        assert tenant in {line.get("tenant") for line in told.with_text(f"{text}-{number}")}


@cannot(78, Layer.RUNTIME)
def test_no_body_header_or_id_is_in_a_log(told: Told) -> None:
    assert told.with_text(telling.SECRET) == []


@cannot(78, Layer.RUNTIME)
def test_no_context_and_no_seed_is_in_a_log(told: Told) -> None:
    assert [line for line in told.logs if TOKEN.search(json.dumps(line))] == []


@cannot(78, Layer.RUNTIME)
def test_no_body_and_no_context_is_in_a_span(told: Told) -> None:
    text = json.dumps(told.spans)
    assert telling.SECRET not in text
    assert telling.RAISED not in text
    assert not TOKEN.search(text)


@cannot(47, Layer.RUNTIME)
def test_the_spans_of_a_trace_name_one_tenant(told: Told) -> None:
    by_trace: dict[str, set[str]] = {}
    for span in told.spans:
        named = by_trace.setdefault(span["context"]["trace_id"], set())
        if tenant := span["attributes"].get("tenant.id"):
            named.add(tenant)
    assert {len(named) for named in by_trace.values()} <= {0, 1}
    assert set(told.tenants.values()) <= set().union(*by_trace.values())


@cannot(47, Layer.RUNTIME)
def test_no_metric_names_a_tenant_or_what_it_sent(told: Told) -> None:
    text = json.dumps(told.metrics)
    for secret in (telling.SECRET, telling.RAISED, telling.LOGGED):
        assert secret not in text
    values = {v for points in told.metrics.values() for each in points for v in each.values()}
    assert not values & set(told.tenants.values())


@can(78)
def test_logs_spans_and_metrics_tell_of_the_messages(told: Told) -> None:
    assert {line.get("action") for line in told.logs} >= {"telling.fail", "notes.remember"}
    assert {span["name"] for span in told.spans} >= {"admit", "process telling.fail"}
    assert "messaging.process.duration" in told.metrics
