from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tenantry.errors import BadMessage
from tenantry.messages import DeadLetter
from tenantry.wire import letter

LETTER = DeadLetter(
    reason="handler_failed",
    detail="RuntimeError: no such account",
    attempts=7,
    service="ledger",
    action="orders.placed",
    seq=4711,
    stored=1763697600.25,
    first_failed=1763697601.5,
    at=1763697700.125,
)

TIMES = st.floats(0, 1e11, allow_nan=False)
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=20)
VALUES = st.text("abc ,;=:é0123456789", max_size=20)
PREFIXES = st.sampled_from(["", "", "Nats-", "nats-", "Tenant-", "Trace-"])
OWN = st.dictionaries(st.builds(str.__add__, PREFIXES, NAMES), VALUES, max_size=8).map(
    lambda found: {n: v for n, v in found.items() if not n.lower().startswith("tenant-dead-")}
)
WORDS = st.lists(st.text("abcé:.'(", min_size=1, max_size=9), max_size=8).map(" ".join)
LETTERS = st.builds(
    DeadLetter,
    reason=st.sampled_from(["bad_message", "bad_context", "handler_failed"]),
    detail=WORDS,
    attempts=st.integers(0, 10**9),
    service=st.sampled_from(["orders", "a", "ledger_2"]),
    action=st.sampled_from(["orders.place", "a.b"]),
    seq=st.integers(1, 2**62),
    stored=TIMES,
    first_failed=TIMES,
    at=TIMES,
)


@given(LETTERS, OWN)
def test_what_is_dumped_is_loaded(one: DeadLetter, own: dict[str, str]) -> None:
    assert letter.load(letter.dump(one, own)) == (one, own)


@given(LETTERS, OWN)
def test_nothing_in_it_means_anything_to_nats(one: DeadLetter, own: dict[str, str]) -> None:
    assert not [name for name in letter.dump(one, own) if name.lower().startswith("nats-")]


@given(st.text())
def test_any_detail_is_a_short_line_of_utf_8(detail: str) -> None:
    made = letter.dump(replace(LETTER, detail=detail), {}).get("Tenant-Dead-Detail", "x")
    made.encode()
    assert made.isprintable()
    assert made == made.strip()
    assert len(made) <= letter.MAX_DETAIL


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=30)))
def test_any_headers_load_or_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(BadMessage):
        letter.load(headers)


def test_each_field_has_its_header() -> None:
    assert letter.dump(LETTER, {}) == {
        "Tenant-Dead-Reason": "handler_failed",
        "Tenant-Dead-Detail": "RuntimeError: no such account",
        "Tenant-Dead-Attempts": "7",
        "Tenant-Dead-Service": "ledger",
        "Tenant-Dead-Action": "orders.placed",
        "Tenant-Dead-Seq": "4711",
        "Tenant-Dead-Stored": "1763697600.25",
        "Tenant-Dead-First-Failed": "1763697601.5",
        "Tenant-Dead-At": "1763697700.125",
    }


@pytest.mark.parametrize("name", ["(a)", "a/b", "", "a\0", "\x7f"])
def test_a_header_that_can_not_be_sent_is_left_out(name: str) -> None:
    assert letter.dump(LETTER, {name: "x", "b": "y"}) == letter.dump(LETTER, {"b": "y"})


def test_headers_of_nats_are_kept_under_another_name() -> None:
    dumped = letter.dump(LETTER, {"Nats-Msg-Id": "a.1", "nats-ttl": "5s", "traceparent": "00-"})
    assert dumped["Tenant-Dead-Nats-Msg-Id"] == "a.1"
    assert dumped["Tenant-Dead-nats-ttl"] == "5s"
    assert dumped["traceparent"] == "00-"


def test_what_nats_says_of_the_letter_itself_is_not_the_messages() -> None:
    delivered = {"Nats-Msg-Id": "a.1", "Nats-Pin-Id": "of the delivery"}
    headers = {**letter.dump(LETTER, delivered), "Nats-Sequence": "9", "x": "y"}
    assert letter.load(headers)[1] == {"Nats-Msg-Id": "a.1", "x": "y"}


def test_a_message_can_not_say_why_it_died() -> None:
    dumped = letter.dump(LETTER, {"tenant-dead-reason": "forged", "Tenant-Dead-Other": "x"})
    assert dumped == letter.dump(LETTER, {})


def test_a_long_detail_is_cut() -> None:
    assert letter.dump(replace(LETTER, detail="x" * 9_000), {})["Tenant-Dead-Detail"] == "x" * 500


@pytest.mark.parametrize("field", ["Reason", "Attempts", "Service", "Action", "Seq", "At"])
def test_a_letter_without_this_is_none(field: str) -> None:
    headers = letter.dump(LETTER, {})
    del headers[f"Tenant-Dead-{field}"]
    with pytest.raises(BadMessage, match="no dead letter"):
        letter.load(headers)


@pytest.mark.parametrize(
    ("field", "value"),
    [("Attempts", "many"), ("Seq", "1.5"), ("At", "nan"), ("Stored", "inf"), ("Service", "A.b")],
)
def test_a_letter_with_this_is_none(field: str, value: str) -> None:
    with pytest.raises(BadMessage, match="no dead letter"):
        letter.load({**letter.dump(LETTER, {}), f"Tenant-Dead-{field}": value})
