"""With an OpenTelemetry SDK, a message is one trace from the client to the last follower."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tenantry.operator import OperatorHome
from tests import covered
from tests.servers import NatsServers

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Seen:
    """What the traced process has told."""

    traces: dict[str, str]
    spans: list[dict[str, Any]]
    metrics: dict[str, list[tuple[dict[str, str], float]]]

    def path(self, name: str) -> list[str]:
        """The names of a trace's spans below the test's own, from parent to child."""
        spans = [span for span in self.spans if span["trace"] == self.traces[name]]
        children = {span["parent"]: span for span in spans}
        assert len(children) == len(spans), "a trace with branches"
        path, span = [], children[None]
        while span := children.get(span["id"]):
            path.append(span["name"])
        assert len(path) == len(spans) - 1, "a trace with gaps"
        return path

    def span(self, trace: str, name: str) -> dict[str, Any]:
        wanted = self.traces[trace]
        (span,) = [s for s in self.spans if s["trace"] == wanted and s["name"] == name]
        return span


@pytest.fixture(scope="module")
def seen(nats_backend: NatsServers, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    backend = nats_backend(OperatorHome.create)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.integration.mesh.traced"),
            *(backend.url, str(backend.home), str(tmp_path_factory.mktemp("traced"))),
        ],
        cwd=ROOT,
        env=covered.environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return Seen(**json.loads(done.stdout))


def test_a_request_is_one_trace_from_the_client_to_the_follower(seen: Seen) -> None:
    assert seen.path("request") == [
        "request notes.emit",
        "admit",
        "process notes.emit",
        "process notes.noted",
    ]


def test_a_command_is_one_trace_from_the_client_to_the_follower(seen: Seen) -> None:
    assert seen.path("command") == [
        "publish notes.stumble",
        "admit",
        "process notes.stumble",
        "process notes.noted",
    ]


def test_a_request_between_services_is_in_the_trace(seen: Seen) -> None:
    assert seen.path("relay") == [
        "request notes.relay",
        "admit",
        "process notes.relay",
        "send notes.private",
        "process notes.private",
    ]


@pytest.mark.parametrize(
    ("trace", "name", "kind"),
    [
        ("request", "request notes.emit", "CLIENT"),
        ("request", "admit", "PRODUCER"),
        ("request", "process notes.emit", "SERVER"),
        ("request", "process notes.noted", "CONSUMER"),
        ("command", "process notes.stumble", "CONSUMER"),
        ("relay", "send notes.private", "CLIENT"),
    ],
)
def test_a_span_is_of_its_kind(seen: Seen, trace: str, name: str, kind: str) -> None:
    assert seen.span(trace, name)["kind"] == kind


def test_every_span_is_of_the_messaging_system(seen: Seen) -> None:
    ours = [span for span in seen.spans if span["parent"]]
    assert {span["attributes"]["messaging.system"] for span in ours} == {"nats"}


def test_a_destination_is_named_without_the_tenant(seen: Seen) -> None:
    attributes = seen.span("request", "process notes.emit")["attributes"]
    assert attributes["messaging.destination.template"] == "request.*.notes.emit"


TENANT = ("tenant.id", "tenant.tier", "enduser.id")


@pytest.mark.parametrize(
    ("trace", "name"),
    [
        ("request", "admit"),
        ("request", "process notes.emit"),
        ("request", "process notes.noted"),
        ("command", "admit"),
        ("command", "process notes.stumble"),
        ("relay", "send notes.private"),
        ("relay", "process notes.private"),
        ("reject", "process notes.bad"),
    ],
)
def test_a_span_tells_tenant_plan_and_principal(seen: Seen, trace: str, name: str) -> None:
    attributes = seen.span(trace, name)["attributes"]
    tenant = seen.span(trace, seen.path(trace)[0])["attributes"]["tenant.id"]
    assert [attributes[each] for each in TENANT] == [tenant, "business", "edge"]


@pytest.mark.parametrize(
    ("trace", "template"),
    [("request", "request.*.notes.emit"), ("command", "tenant.*.notes.stumble")],
)
def test_an_admitted_message_has_a_destination(seen: Seen, trace: str, template: str) -> None:
    attributes = seen.span(trace, "admit")["attributes"]
    assert attributes["messaging.destination.template"] == template


def test_a_refused_message_tells_where_it_came_in(seen: Seen) -> None:
    refused = [
        span["attributes"]
        for span in seen.spans
        if span["name"] == "admit" and span["attributes"].get("error.type") == "unknown_action"
    ]
    assert {each["messaging.destination.template"] for each in refused} == {"edge.*.nobody.nothing"}
    assert all(each["tenant.id"] for each in refused)


def test_a_good_end_is_no_error(seen: Seen) -> None:
    assert seen.span("request", "process notes.emit")["status"] == "UNSET"


@pytest.mark.parametrize(("how", "code"), [("raise", "handler_failed"), ("reject", "conflict")])
@pytest.mark.parametrize("name", ["process notes.bad", "request notes.bad"])
def test_an_error_is_noted_by_its_code(seen: Seen, how: str, code: str, name: str) -> None:
    span = seen.span(how, name)
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", code)


@pytest.mark.parametrize("how", ["raise", "reject"])
def test_the_error_names_the_trace(seen: Seen, how: str) -> None:
    assert seen.traces[f"{how}.instance"] == f"urn:trace:{seen.traces[how]}"


# --- metrics: the same process counts -------------------------------------------------------------


def points(seen: Seen, name: str, **attributes: str) -> list[float]:
    """The values of those points of a metric that have these attributes (`_` for `.`)."""
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    return [value for found, value in seen.metrics[name] if wanted.items() <= found.items()]


def test_decisions_are_counted(seen: Seen) -> None:
    (admitted,) = points(seen, "tenantry.router.decisions", tenantry__verdict="admitted")
    assert admitted >= 6


def test_refusals_are_counted_by_reason(seen: Seen) -> None:
    reason = {"tenantry__verdict": "refused", "tenantry__reason": "unknown_action"}
    assert points(seen, "tenantry.router.decisions", **reason)[0] >= 1


def test_the_time_that_handlers_take_is_measured(seen: Seen) -> None:
    template = "request.*.notes.emit"
    assert points(
        seen, "messaging.process.duration", messaging__destination__template=template
    ) == [1]


def test_failures_are_measured_apart(seen: Seen) -> None:
    assert points(seen, "messaging.process.duration", error__type="handler_failed")


def test_messages_are_counted(seen: Seen) -> None:
    template = "tenant.*.notes.remember"
    assert points(
        seen, "messaging.client.consumed.messages", messaging__destination__template=template
    ) == [1]


@pytest.mark.parametrize("service", ["notes", "followers"])
def test_the_time_that_messages_wait_is_measured(seen: Seen, service: str) -> None:
    assert points(seen, "tenantry.queue.duration", tenantry__service=service)[0] >= 1


def test_dead_letters_are_counted(seen: Seen) -> None:
    assert points(
        seen, "tenantry.dead_letters", tenantry__service="notes", tenantry__reason="bad_message"
    ) == [1]


def test_the_lag_of_lanes_is_told(seen: Seen) -> None:
    assert points(seen, "tenantry.lane.lag", tenantry__service="notes") == [0]


def test_no_metric_names_a_tenant(seen: Seen) -> None:
    attributes = {name for found in seen.metrics.values() for point, _ in found for name in point}
    assert "tenant.id" not in attributes
