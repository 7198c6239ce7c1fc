"""After the world: every place where a secret may lie is read, and who may see it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from tenantry.bus import Bus, api
from tenantry.bus.scan import scan
from tests.isolation.world.canary import Canaries
from tests.isolation.world.customer import Customer


class Search:
    """Reads, counts what it has read, and keeps what is wrong in `findings`."""

    def __init__(self, canaries: Canaries, traces: Mapping[str, str]) -> None:
        self.findings: list[str] = []
        self.read: dict[str, int] = {}
        self._canaries = canaries
        self._traces = traces

    def _look(self, place: str, may: set[str], *texts: str | bytes) -> None:
        self.read[place] = self.read.get(place, 0) + 1
        for owner in self._canaries.owners(*texts) - may:
            self.findings.append(
                f"{place}: the secret of {owner} where only {sorted(may)} may look"
            )

    async def streams(self, control: Bus) -> None:
        """All that JetStream holds: the subject says whose a message is."""
        names = (await api(control, "STREAM.NAMES"))["streams"]
        for stream in names:
            async with aclosing(scan(control, stream, ">")) as messages:
                async for message in messages:
                    fields = json.dumps(message.headers)
                    tokens = set(message.subject.replace("/", ".").split("."))
                    self._look(stream, tokens, message.subject, fields, message.data)

    def heard(self, customers: Iterable[Customer]) -> None:
        """All that any program was ever told."""
        for each in customers:
            may = {each.tenant}
            for error in each.errors:
                self._look("errors", may, error)
            for heard in each.heard:
                about = (heard.subject, heard.reply, json.dumps(heard.headers))
                self._look("messages heard", may, *about, heard.data)

    def logs(self, lines: Iterable[str]) -> None:
        """A line of the log may hold the secret of the tenant that it names."""
        for line in lines:
            tenant = json.loads(line).get("tenant") if line.startswith("{") else None
            self._look("log lines", {str(tenant)}, line)

    def spans(self, spans: Iterable[ReadableSpan]) -> None:
        """A span may hold the secret of the tenant whose trace it is in."""
        for span in spans:
            assert span.context is not None
            may = {self._traces.get(f"{span.context.trace_id:032x}", "")}
            events = [(event.name, dict(event.attributes or {})) for event in span.events]
            held = (span.name, dict(span.attributes or {}), events, span.status.description)
            self._look("spans", may, json.dumps(held, default=str))

    def metrics(self, points: Iterable[Mapping[str, Any]]) -> None:
        """No label of a metric holds anybody's secret."""
        for point in points:
            self._look("labels of metrics", set(), json.dumps(dict(point), default=str))

    def kept(self, customer: Customer, found: Mapping[str, Any]) -> None:
        """What a tenant has stored is all there, and nothing else is."""
        stored, followed = list(found["stored"]), list(found["followed"])
        for text in customer.acknowledged:
            if text not in stored:
                self.findings.append(f"{customer.tenant}: {text} was acknowledged and is not there")
        for text in (*stored, *followed, *found["values"].values()):
            if not text.startswith(customer.secret):
                self.findings.append(f"{customer.tenant}: somebody has written {text!r} to it")
