"""W3C Trace Context (the vectors of its own test suite), with and without an OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenantry.wire import trace
from tenantry.wire.trace import Trace

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = Trace(ID, SPAN)

ids = st.integers(1, 2**128 - 1).map("{:032x}".format)
span_ids = st.integers(1, 2**64 - 1).map("{:016x}".format)
states = st.text("abc=,019", max_size=512)
traces = st.builds(Trace, ids, span_ids, st.sampled_from(["00", "01", "02", "03"]), states)


def extract(traceparent: str, **more: str) -> Trace | None:
    return trace.extract({"traceparent": traceparent, **more})


# passing on


@given(traces)
def test_what_is_injected_is_extracted(one: Trace) -> None:
    headers: dict[str, str] = {}
    one.inject(headers)
    assert trace.extract(headers) == one


def test_a_child_is_another_span_of_the_same_trace() -> None:
    child = Trace(ID, SPAN, "00", "v=1").child()
    assert (child.trace_id, child.flags, child.state) == (ID, "00", "v=1")
    assert child.span_id != SPAN


def test_no_state_makes_no_header() -> None:
    headers: dict[str, str] = {}
    PARENT.inject(headers)
    assert headers == {"traceparent": f"00-{ID}-{SPAN}-01"}


def test_new_traces_are_well_formed_and_differ() -> None:
    made = {trace.new() for _ in range(1000)}
    assert len({one.trace_id for one in made}) == 1000
    assert all(extract(f"00-{one.trace_id}-{one.span_id}-01") for one in made)


# reading


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{ID}-{SPAN}-01",
        f"00-{ID}-{SPAN}-00",
        f"01-{ID}-{SPAN}-01",
        f"cc-{ID}-{SPAN}-01",
        f"cc-{ID}-{SPAN}-01-what-the-future-will-be-like",
        f"fe-{ID}-{SPAN}-01-",
    ],
)
def test_a_valid_parent_is_taken(traceparent: str) -> None:
    found = extract(traceparent)
    assert found is not None
    assert (found.trace_id, found.span_id) == (ID, SPAN)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "-",
        "00",
        f"ff-{ID}-{SPAN}-01",
        f"ff-{ID}-{SPAN}-01-x",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID}-{SPAN}-01-",
        f"00-{ID}-{SPAN}-01-what-the-future",
        f"00-{ID}-{SPAN}-01.what",
        f"cc-{ID}-{SPAN}-01.what-the-future-will-not-be-like",
        f"cc-{ID}-{SPAN}-011",
        f"cc-{ID}-{SPAN}-01-" + "x" * 100,
        f"00-{ID}-{SPAN}-1",
        f"00-{ID}-{SPAN}-001",
        f"00-{ID}-{SPAN}-0g",
        f"00-{ID}-{SPAN}",
        f"00-{ID.upper()}-{SPAN}-01",
        f"00-{ID}-{SPAN.upper()}-01",
        f"0A-{ID}-{SPAN}-01",
        f"00-{ID[:-1]}-{SPAN}-01",
        f"00-{ID}a-{SPAN}-01",
        f"00-{ID}-{SPAN[:-1]}-01",
        f"00-{ID}-{SPAN}a-01",
        f"00-{ID[:-1]}.-{SPAN}-01",
        f"00_{ID}_{SPAN}_01",
        f"0-{ID}-{SPAN}-01",
        f"000-{ID}-{SPAN}-01",
        f" 00-{ID}-{SPAN}-01",
        f"00-{ID}-{SPAN}-01 ",
        f"00-{ID}-{SPAN}-01\n",
        f"00-{ID}-{SPAN}-01,00-{ID}-{SPAN}-01",
        f"00-{ID[:-1]}\u0661-{SPAN}-01",
        f"00-{ID[:-1]}\uff11-{SPAN}-01",
    ],
)
def test_a_malformed_parent_is_none(traceparent: str) -> None:
    assert extract(traceparent) is None


@pytest.mark.parametrize("headers", [None, {}, {"Content-Type": "x"}, {"tracestate": "a=b"}])
def test_without_a_parent_there_is_none(headers: dict[str, str] | None) -> None:
    assert trace.extract(headers) is None


@given(st.text(max_size=80))
def test_no_text_is_taken_that_is_not_passed_on_well_formed(text: str) -> None:
    found = extract(text)
    if found is not None:
        headers: dict[str, str] = {}
        found.inject(headers)
        assert trace.extract(headers) == found


@pytest.mark.parametrize(
    ("flags", "kept"), [("00", "00"), ("01", "01"), ("ff", "03"), ("04", "00")]
)
def test_flags_that_mean_nothing_yet_are_not_passed_on(flags: str, kept: str) -> None:
    found = extract(f"00-{ID}-{SPAN}-{flags}")
    assert found is not None
    assert found.flags == kept


@pytest.mark.parametrize(("length", "kept"), [(512, 512), (513, 0)])
def test_a_state_that_is_too_long_is_dropped(length: int, kept: int) -> None:
    found = extract(f"00-{ID}-{SPAN}-01", tracestate="s" * length)
    assert found is not None
    assert len(found.state) == kept


# spans without an SDK


def test_without_an_sdk_none_is_enabled() -> None:
    assert not trace.enabled()


def test_without_an_sdk_a_span_is_a_child_of_its_parent() -> None:
    with trace.span("x", trace.KIND_SERVER, PARENT, {}) as span:
        assert span.trace.trace_id == ID
        assert span.trace.span_id != SPAN


def test_without_an_sdk_a_span_with_no_parent_starts_a_trace() -> None:
    with trace.span("x", trace.KIND_SERVER, None, {}) as span:
        assert int(span.trace.trace_id, 16)


def test_without_an_sdk_a_failure_costs_nothing() -> None:
    with trace.span("x", trace.KIND_SERVER, PARENT, {}) as span:
        span.failed("conflict")


# spans with an SDK


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What an SDK exports; set where `set_tracer_provider` puts it, which works only once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(otel, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def test_with_an_sdk_a_span_has_its_parent(spans: InMemorySpanExporter) -> None:
    with trace.span("place", trace.KIND_SERVER, PARENT, {}):
        pass
    (done,) = spans.get_finished_spans()
    assert done.parent is not None
    assert f"{done.parent.span_id:016x}" == SPAN
    assert done.parent.is_remote


def test_with_an_sdk_what_is_passed_on_is_the_exported_span(spans: InMemorySpanExporter) -> None:
    with trace.span("place", trace.KIND_SERVER, PARENT, {}) as span:
        passed_on = span.trace
    (done,) = spans.get_finished_spans()
    assert passed_on == Trace(ID, f"{done.context.span_id:016x}", "01", "")


def test_with_an_sdk_the_state_is_passed_on(spans: InMemorySpanExporter) -> None:
    with trace.span("x", trace.KIND_SERVER, Trace(ID, SPAN, state="a=1,b=2"), {}) as span:
        assert span.trace.state == "a=1,b=2"


def test_with_an_sdk_a_span_with_no_parent_starts_a_trace(spans: InMemorySpanExporter) -> None:
    with trace.span("place", trace.KIND_SERVER, None, {}) as span:
        assert int(span.trace.trace_id, 16)
    assert spans.get_finished_spans()[0].parent is None


def test_with_an_sdk_spans_nest_by_their_own_ids(spans: InMemorySpanExporter) -> None:
    with (
        trace.span("outer", trace.KIND_SERVER, PARENT, {}) as outer,
        trace.span("inner", trace.KIND_CLIENT, outer.trace, {}),
    ):
        pass
    inner = spans.get_finished_spans()[0]
    assert inner.parent is not None
    assert f"{inner.parent.span_id:016x}" == outer.trace.span_id


def test_with_an_sdk_a_parent_that_is_not_sampled_is_respected(
    spans: InMemorySpanExporter,
) -> None:
    with trace.span("x", trace.KIND_SERVER, Trace(ID, SPAN, "00"), {}) as span:
        assert span.trace.flags == "00"
    assert not spans.get_finished_spans()


def test_with_an_sdk_attributes_are_those_given_and_the_system(
    spans: InMemorySpanExporter,
) -> None:
    with trace.span("x", trace.KIND_SERVER, None, {"tenant.id": "acme"}):
        pass
    attributes = dict(spans.get_finished_spans()[0].attributes or {})
    assert attributes == {"messaging.system": "nats", "tenant.id": "acme"}


def test_with_an_sdk_a_failure_has_its_stable_code(spans: InMemorySpanExporter) -> None:
    with trace.span("x", trace.KIND_SERVER, None, {}) as span:
        span.failed("conflict")
    (done,) = spans.get_finished_spans()
    assert (done.attributes or {})["error.type"] == "conflict"
    assert not done.status.is_ok


def test_with_an_sdk_an_error_that_passes_is_told_without_its_text(
    spans: InMemorySpanExporter,
) -> None:
    with pytest.raises(ValueError, match="secret"), trace.span("x", trace.KIND_SERVER, None, {}):
        raise ValueError("secret")
    assert "secret" not in spans.get_finished_spans()[0].to_json()
    assert (spans.get_finished_spans()[0].attributes or {})["error.type"] == "ValueError"


@pytest.mark.parametrize("parent", [PARENT, None])
def test_with_an_sdk_switched_off_the_ids_are_still_well_formed(
    monkeypatch: pytest.MonkeyPatch, parent: Trace | None
) -> None:
    """As with OTEL_SDK_DISABLED=true."""
    monkeypatch.setattr(otel, "_TRACER_PROVIDER", otel.NoOpTracerProvider())
    headers: dict[str, str] = {}
    with trace.span("x", trace.KIND_SERVER, parent, {}) as span:
        span.trace.inject(headers)
        span.failed("conflict")
    found = trace.extract(headers)
    assert found is not None
    assert parent is None or found.trace_id == ID


def test_traces_differ_where_one_field_does() -> None:
    others = [Trace("1" * 32, SPAN), Trace(ID, "1" * 16), Trace(ID, SPAN, "00"), PARENT.child()]
    assert [other == PARENT for other in others] == [False] * 4


def test_a_trace_is_nothing_else() -> None:
    assert PARENT != (ID, SPAN, "01", "")


def test_a_trace_shows_its_fields() -> None:
    assert repr(PARENT) == f"Trace('{ID}', '{SPAN}', '01', '')"
