from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import subjects
from tenantry.errors import BadSubject
from tenantry.subjects import Address

LOWER, DIGITS = string.ascii_lowercase, string.digits

labels = st.text(LOWER + DIGITS + "-", min_size=1, max_size=63).filter(
    lambda text: not text.startswith("-") and not text.endswith("-")
)
names = st.builds(
    str.__add__, st.sampled_from(LOWER), st.text(LOWER + DIGITS + "_", max_size=62)
).filter(lambda text: not text.endswith("_"))
addresses = st.builds(Address, labels, names, names)

# Texts near the border: mostly allowed characters, and now and then any other.
nearly = st.text(
    st.one_of(st.sampled_from(LOWER + DIGITS + "-_.*> \r\n\0"), st.characters()), max_size=70
)

NO_TENANTS = [
    "",
    "a.b",
    ".",
    "a.",
    "*",
    ">",
    "a*",
    "a>",
    "$js",
    "_inbox",
    "a_b",
    "a/b",
    "a b",
    " a",
    "a ",
    "a\t",
    "a\r",
    "a\n",
    "a\r\nPUB x 0",
    "a\0",
    "Acme",
    "ACME",
    "-a",
    "a-",
    "-",
    "a" * 64,
    "\u0430cme",  # a Cyrillic a
    "\uff41cme",  # a full-width a
    "acme\u0301",  # with a combining accent
    "acme\u200b",  # with a space of no width
    "acm\u00e9",
    "\u0661",  # a digit, but no ASCII one
    "\ud800",
]
NO_NAMES = [*(text for text in NO_TENANTS if text not in {"a_b", "-a", "a-"}), "1a", "_a", "a_"]
NO_NAMES += ["a-b", "9"]


# ids and names


@given(labels)
def test_a_dns_label_is_a_tenant(label: str) -> None:
    assert subjects.check_tenant(label) == label


@pytest.mark.parametrize("label", ["a", "0", "a" * 63, "a-b", "a--b", "1-1"])
def test_the_shortest_the_longest_and_inner_dashes_are_tenants(label: str) -> None:
    assert subjects.is_tenant(label)


@pytest.mark.parametrize("text", NO_TENANTS)
def test_what_is_no_dns_label_is_no_tenant(text: str) -> None:
    with pytest.raises(BadSubject):
        subjects.check_tenant(text)


@given(nearly)
def test_a_tenant_is_a_dns_label_and_nothing_else(text: str) -> None:
    expected = (
        1 <= len(text) <= 63
        and set(text) <= set(LOWER + DIGITS + "-")
        and text[0] != "-"
        and text[-1] != "-"
    )
    assert subjects.is_tenant(text) == expected


@given(names)
def test_a_name_is_accepted(name: str) -> None:
    assert subjects.check_name(name, "service") == name


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadSubject):
        subjects.check_name(text, "action")


@given(nearly)
def test_a_name_starts_with_a_letter_and_ends_without_underscore(text: str) -> None:
    expected = (
        1 <= len(text) <= 63
        and set(text) <= set(LOWER + DIGITS + "_")
        and text[0] in LOWER
        and text[-1] != "_"
    )
    assert subjects.is_name(text) == expected


def test_the_refusal_says_what_a_tenant_looks_like() -> None:
    with pytest.raises(BadSubject) as caught:
        subjects.check_tenant("Acme")
    assert "DNS label" in caught.value.hint


def test_the_refusal_says_what_was_to_be_named() -> None:
    with pytest.raises(BadSubject, match="valid name of a service"):
        subjects.check_name("9", "service")


@given(nearly)
def test_a_refusal_is_short_and_on_one_line(text: str) -> None:
    with pytest.raises(BadSubject) as caught:
        subjects.check_tenant(f"_{text * 50}")
    assert len(caught.value.message) < 900
    assert not set(caught.value.message) & {"\r", "\n", "\0"}


# subjects


@given(addresses)
def test_what_is_addressed_is_parsed_back_from_the_journal(to: Address) -> None:
    assert subjects.parse(subjects.journal(to)) == to


@given(addresses)
def test_what_is_addressed_is_parsed_back_from_a_request(to: Address) -> None:
    assert subjects.parse(subjects.request(to)) == to


@given(addresses, st.integers(0, subjects.PARTITIONS - 1))
def test_what_the_journal_stored_is_parsed_back(to: Address, partition: int) -> None:
    stored = f"journal.{partition}.{to.tenant}.{to.name}"
    assert subjects.parse_stored(stored) == to


@given(addresses)
def test_an_address_is_made_of_a_tenant_and_an_action(to: Address) -> None:
    assert subjects.address(to.tenant, to.name) == to


@given(addresses)
def test_a_subject_has_four_tokens_and_no_wildcard(to: Address) -> None:
    subject = subjects.journal(to)
    assert subject.count(".") == 3
    assert not set(subject) & set("*> \t\r\n\0")


@given(addresses, addresses)
def test_two_addresses_have_two_subjects(one: Address, other: Address) -> None:
    assert (subjects.request(one) == subjects.request(other)) == (one == other)


@given(st.text(max_size=80))
def test_whatever_is_parsed_is_refused_or_read_as_it_stands(text: str) -> None:
    try:
        to = subjects.parse(text)
    except BadSubject:
        return
    assert text.split(".")[1:] == list(to)


@given(nearly, nearly)
def test_no_text_becomes_an_address_of_another_shape(tenant: str, action: str) -> None:
    try:
        to = subjects.address(tenant, action)
    except BadSubject:
        return
    assert (to.tenant, to.name) == (tenant, action)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "tenant",
        "tenant.acme.orders",
        "tenant.acme.orders.place.now",
        "tenant..orders.place",
        "tenant.acme..place",
        "tenant.acme.orders.",
        "tenant.*.orders.place",
        "tenant.acme.orders.>",
        "tenant.acme.orders.*",
        "tenant.Acme.orders.place",
        "tenant.acme.Orders.place",
        "tenant.acme.orders.pl ace",
        "tenant.acme.orders.place\n",
    ],
)
def test_a_malformed_subject_is_refused(subject: str) -> None:
    with pytest.raises(BadSubject):
        subjects.parse(subject)


@pytest.mark.parametrize("action", ["", "orders", "orders.", ".place", "orders.place.x", "o.*"])
def test_what_names_no_action_is_refused(action: str) -> None:
    with pytest.raises(BadSubject, match="does not name an action"):
        subjects.split_action(action)


def test_a_service_hears_one_action_of_all_tenants() -> None:
    assert subjects.requests("orders", "place") == "request.*.orders.place"


def test_a_lane_filters_one_action_of_one_partition() -> None:
    assert subjects.stored(3, "orders", "place") == "journal.3.*.orders.place"


def test_the_control_plane_has_no_tenant() -> None:
    assert subjects.platform("tenants", "show") == "platform.tenants.show"


def test_an_inbox_belongs_to_a_tenant() -> None:
    assert subjects.inbox("acme") == "_INBOX.acme"
