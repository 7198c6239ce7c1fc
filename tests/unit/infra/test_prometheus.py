"""The alerts in infra/prometheus speak of metrics that there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry import metrics
from tenantry.metrics import Metric

FOLDER = Path(__file__).parents[3] / "infra" / "prometheus"
RULES = FOLDER / "tenantry-rules.yml"
ATTRIBUTES = {
    *(metrics.VERDICT, metrics.REASON, metrics.SERVICE, metrics.OUTCOME, metrics.LEASE),
    metrics.ACTION,
    *("messaging.destination.template", "error.type", "instance", "le"),
}


def in_prometheus(metric: Metric) -> set[str]:
    """The names of a metric's series: OpenTelemetry's rules for Prometheus (units, `_total`)."""
    name = metric.name.replace(".", "_")
    name += {"s": "_seconds", "{message}/s": "_per_second"}.get(metric.unit, "")
    if metric.kind == "histogram":
        return {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return {f"{name}_total" if metric.kind == "counter" else name}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


SERIES = set().union(*map(in_prometheus, metrics.ALL))
each_alert = pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])


@each_alert
def test_an_alert_is_whole(rule: dict[str, Any]) -> None:
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}


@each_alert
def test_an_alert_speaks_of_metrics_that_there_are(rule: dict[str, Any]) -> None:
    expression = re.sub(r"\{[^}]*\}|by \([^)]*\)|ignoring \([^)]*\)", "", rule["expr"])
    named = set(re.findall(r"\b(?:tenantry|messaging)_\w+", expression))
    assert named
    assert named <= SERIES


@each_alert
def test_an_alert_speaks_of_attributes_that_there_are(rule: dict[str, Any]) -> None:
    known = {name.replace(".", "_") for name in ATTRIBUTES}
    text = rule["expr"]
    used = set(re.findall(r"(\w+)\s*!?=~?\s*\"", text))
    for group in re.findall(r"(?:by|ignoring) \(([^)]*)\)", text):
        used |= {name.strip() for name in group.split(",")}
    used |= set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert used <= known


def test_every_alert_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("metric", metrics.ALL, ids=lambda metric: metric.name)
def test_every_metric_is_in_the_readme(metric: Metric) -> None:
    series = min(in_prometheus(metric), key=len).removesuffix("_sum")
    assert f"| `{metric.name}` | `{series}` |" in (FOLDER / "README.md").read_text()


@pytest.mark.skipif(
    not (os.environ.get("PROMTOOL") or shutil.which("promtool")),
    reason="promtool is not here (Debian: it is in the package prometheus)",
)
def test_promtool_takes_the_rules() -> None:
    promtool = os.environ.get("PROMTOOL") or "promtool"
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True)
    assert (done.returncode, f"SUCCESS: {len(alerts())} rules found" in done.stdout) == (0, True)
