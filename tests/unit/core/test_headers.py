from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.wire import headers

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", max_size=20)


@st.composite
def in_any_case(draw: st.DrawFn, word: str) -> str:
    return "".join(draw(st.sampled_from([letter.lower(), letter.upper()])) for letter in word)


@given(st.sampled_from(["nats-", "tenant-"]).flatmap(in_any_case), TOKEN)
def test_what_nats_and_the_mesh_give_meaning_to_is_dropped(prefix: str, rest: str) -> None:
    assert headers.from_outside({prefix + rest: "x"}) == {}


@given(
    st.sampled_from(["status", "description", "baggage", "traceparent", "tracestate"]).flatmap(
        in_any_case
    )
)
def test_words_of_nats_and_of_tracing_are_dropped(name: str) -> None:
    assert headers.from_outside({name: "x"}) == {}


@pytest.mark.parametrize(
    "name",
    [
        headers.CONTEXT,
        headers.DEADLINE,
        headers.TIMEOUT,
        headers.MSG_ID,
        headers.TTL,
        headers.ERROR,
        headers.ERROR_CODE,
        headers.TRACEPARENT,
        headers.TRACESTATE,
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Rollup",
        "Nats-Trace-Dest",
        "Status",
    ],
)
def test_no_header_that_the_mesh_sets_comes_from_outside(name: str) -> None:
    assert headers.from_outside({name: "x", "X-Mine": "y"}) == {"X-Mine": "y"}


@pytest.mark.parametrize(
    "name", ["Content-Type", "X-Tenant-Context", "natsx", "tenant", "Nats", "Tenants", "My-Nats-Id"]
)
def test_what_only_looks_like_them_is_kept(name: str) -> None:
    assert headers.from_outside({name: "value"}) == {name: "value"}


@given(st.dictionaries(TOKEN, st.text(max_size=5)))
def test_what_is_kept_is_as_it_came(fields: dict[str, str]) -> None:
    assert headers.from_outside(fields).items() <= fields.items()


def test_the_headers_that_came_are_not_touched() -> None:
    fields = {"Nats-Msg-Id": "x", "Content-Type": "y"}
    headers.from_outside(fields)
    assert fields == {"Nats-Msg-Id": "x", "Content-Type": "y"}


@given(in_any_case("Nats-Msg-Id"))
def test_a_header_is_found_whatever_its_case(name: str) -> None:
    assert headers.find({"Other": "no", name: "yes"}, headers.MSG_ID) == "yes"


def test_the_exact_name_goes_before_another_case() -> None:
    assert headers.find({"nats-msg-id": "a", "Nats-Msg-Id": "b"}, headers.MSG_ID) == "b"


def test_an_empty_value_is_found() -> None:
    assert headers.find({"nats-msg-id": ""}, headers.MSG_ID) == ""


def test_what_is_not_there_is_not_found() -> None:
    assert headers.find({"X-Nats-Msg-Id": "a"}, headers.MSG_ID) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [("7", 7), ("0", 0), ("", 0), ("-1", 0), ("x", 0), ("1e3", 0), ("\u00b2", 0), ("9" * 50, 0)],
)
def test_hops_are_a_short_number(text: str, found: int) -> None:
    assert headers.hops({headers.HOPS: text}) == found
