"""Trace context on every hop (W3C Trace Context), and OpenTelemetry spans where an SDK is set up.

The trace id is also the request id that errors and logs show. Without an SDK no OpenTelemetry
code runs for a message: ids are passed on and new span ids drawn, which costs about 1 µs.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import trace as otel
from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.util.types import AttributeValue

from tenantry.wire import headers as names

_TRACEPARENT = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
_USUAL = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])", re.ASCII).fullmatch
"""What nearly all senders write: told apart in half the time."""
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_FLAGS = 0x03
"""Sampled, and the trace id is random: all that versions so far give a meaning to."""
_PLAIN = frozenset({"00", "01", "02", "03"})

_MAX_STATE = 512
_rng = random.SystemRandom()
_ids = random.Random(_rng.getrandbits(128))  # noqa: S311  (ids need to differ, not to be secret)

if OTEL_PYTHON_TRACER_PROVIDER in os.environ:
    otel.get_tracer_provider()  # sets it

KIND_CONSUMER = SpanKind.CONSUMER
KIND_PRODUCER = SpanKind.PRODUCER
KIND_CLIENT = SpanKind.CLIENT
KIND_SERVER = SpanKind.SERVER


def _hex_id() -> str:
    # Not an f-string: it takes half as long again, and compiled three times as long.
    return "%016x" % (_ids.getrandbits(64) or 1)


class Trace:
    """One hop of a trace: 32 and 16 hex digits, flags, vendor state.

    Made four times for a request: a NamedTuple takes a third longer to make; compiled, it and a
    dataclass take twice as long.
    """

    __slots__ = ("flags", "span_id", "state", "trace_id")

    def __init__(self, trace_id: str, span_id: str, flags: str = "01", state: str = "") -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.state = state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Trace{self._fields()}"

    def _fields(self) -> tuple[str, str, str, str]:
        return self.trace_id, self.span_id, self.flags, self.state

    def child(self) -> Trace:
        """The next hop: same trace, new span."""
        return Trace(self.trace_id, _hex_id(), self.flags, self.state)

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Write `traceparent` and, where there is one, `tracestate`."""
        headers[names.TRACEPARENT] = f"00-{self.trace_id}-{self.span_id}-{self.flags}"
        if self.state:
            headers[names.TRACESTATE] = self.state


def new() -> Trace:
    """Start a trace."""
    return Trace("%032x" % (_ids.getrandbits(128) or 1), _hex_id())


def extract(headers: Mapping[str, str] | None) -> Trace | None:
    """The trace in these headers, or None where there is none or it is malformed."""
    value = headers.get(names.TRACEPARENT) if headers else None
    if headers is None or value is None or len(value) > 128:
        return None
    state = headers.get(names.TRACESTATE, "")
    if len(state) > _MAX_STATE:
        state = ""
    if (usual := _USUAL(value)) is not None:
        trace_id, span_id, flags = usual.groups()
        if trace_id == _NO_TRACE or span_id == _NO_SPAN:
            return None
        return Trace(trace_id, span_id, flags, state)
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    if flags not in _PLAIN:
        flags = f"{int(flags, 16) & _FLAGS:02x}"
    return Trace(trace_id, span_id, flags, state)


class Span:
    """One unit of work: its trace to pass on, and the place to note how it ended."""

    __slots__ = ("_span", "noted", "trace")

    def __init__(self, trace: Trace, span: otel.Span | None = None) -> None:
        self.trace = trace
        self.noted = False
        self._span = span

    def failed(self, code: str) -> None:
        """Note an error by its stable code: its text may quote what a tenant has sent."""
        self.noted = True
        if self._span is not None:
            self._span.set_attribute("error.type", code)
            self._span.set_status(StatusCode.ERROR, code)

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing ends: it is not recorded."""


def enabled() -> bool:
    """Whether the program has set up an OpenTelemetry SDK."""
    # `get_tracer_provider` asks the environment each time, which costs 1 µs.
    return otel._TRACER_PROVIDER is not None  # noqa: SLF001


TENANT = "tenant.id"
PLAN = "tenant.tier"
PRINCIPAL = "enduser.id"
DESTINATION = "messaging.destination.template"


def about(attributes: Mapping[str, AttributeValue]) -> None:
    """Add attributes to the span of the block that runs now, where spans are recorded."""
    if enabled():
        otel.get_current_span().set_attributes(attributes)


def span(
    name: str,
    kind: SpanKind,
    parent: Trace | None,
    attributes: Mapping[str, AttributeValue],
) -> AbstractContextManager[Span]:
    """Run a block as a span below `parent`, or as the root of a new trace."""
    if enabled():
        return _recorded(name, kind, parent, attributes)
    return Span(parent.child() if parent else new())


@contextmanager
def _recorded(
    name: str,
    kind: SpanKind,
    parent: Trace | None,
    attributes: Mapping[str, AttributeValue],
) -> Iterator[Span]:
    tracer = otel.get_tracer("tenantry")
    context = None
    if parent is not None:
        remote = SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(int(parent.flags, 16)),
            trace_state=TraceState.from_header([parent.state]) if parent.state else None,
        )
        context = otel.set_span_in_context(NonRecordingSpan(remote))
    with tracer.start_as_current_span(
        name,
        context,
        kind,
        {"messaging.system": "nats", **attributes},
        record_exception=False,  # see `failed`
        set_status_on_exception=False,
    ) as started:
        own = started.get_span_context()
        if not own.is_valid:  # the SDK is switched off: OTEL_SDK_DISABLED
            yield Span(parent.child() if parent else new(), started)
            return
        hop = Trace(
            f"{own.trace_id:032x}",
            f"{own.span_id:016x}",
            f"{int(own.trace_flags):02x}",
            own.trace_state.to_header(),
        )
        recorded = Span(hop, started)
        try:
            yield recorded
        except Exception as error:
            if not recorded.noted:
                recorded.failed(type(error).__name__)
            raise
