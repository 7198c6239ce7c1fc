"""Whatever two ids: nothing that is made from the one matches what is made from the other."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenantry import subjects
from tenantry.context.state import prefix
from tenantry.errors import BadSubject
from tenantry.journal.erase import _places
from tenantry.operator import roles
from tenantry.operator.creds import tenant_tag
from tenantry.subjects import Address
from tenantry_workers.router.admission import may_answer
from tenantry_workers.router.limits.store import key
from tests.isolation.cases import Layer, can, cannot

LETTERS = string.ascii_lowercase + string.digits
ids = st.text(LETTERS + "-", min_size=1, max_size=63).map(lambda text: text.strip("-") or "a")
names = st.text(string.ascii_lowercase, min_size=1, max_size=9)
numbers = st.integers(0, 2**128 - 1).map("{:032x}".format)
texts = st.text(st.sampled_from(LETTERS + "-_.*>$ \t\r\n\0\x0bAZ\u0430\u200b"), max_size=70)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two ids that differ, often by little."""
    one = draw(ids)
    end = draw(st.text(LETTERS + "-", max_size=3)) + draw(st.sampled_from(LETTERS))
    other = draw(
        st.one_of(
            ids,
            st.just(f"{one}{end}"),
            st.just(f"{end.lstrip('-')}{one}"),
            st.just(one[:-1]),
            st.just(one.replace("-", "--", 1)),
            st.sampled_from(["tenant", "request", "inbox", "mesh", "notes", "tenants", "state"]),
        ).filter(lambda text: text != one and subjects.is_tenant(text))
    )
    return one, other


def matches(pattern: str, subject: str) -> bool:
    """Whether a message on `subject` comes to who has subscribed `pattern`: NATS's own rule."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for number, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > number
        if number >= len(tokens) or token not in {"*", tokens[number]}:
            return False
    return len(wanted) == len(tokens)


def overlap(one: str, other: str) -> bool:
    """Whether there can be a subject that both patterns match."""
    ours, theirs = one.split("."), other.split(".")
    for number in range(max(len(ours), len(theirs))):
        if number >= min(len(ours), len(theirs)):
            return False
        mine, its = ours[number], theirs[number]
        if ">" in {mine, its}:
            return True
        if mine != its and "*" not in {mine, its}:
            return False
    return True


@pytest.mark.parametrize(
    ("pattern", "subject", "does"),
    [
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.b", "a.b", True),
        ("a.b", "a.bc", False),
        ("*.b", "a.b", True),
        (">", "a", True),
    ],
)
def test_the_rule_that_the_tests_go_by(pattern: str, subject: str, does: bool) -> None:
    assert matches(pattern, subject) == does
    assert overlap(pattern, subject) == does


def may(tenant: str) -> list[str]:
    """All that a tenant's programs may publish and subscribe."""
    templates = (*roles.TENANT.pub.allow, *roles.TENANT.sub.allow)
    return [template.replace("{{tag(tenant)}}", tenant) for template in templates]


def reads(tenant: str) -> list[str]:
    """What is asked for where one tenant's is meant."""
    return [
        *may(tenant),
        *(only for _, _, only in _places(tenant)),
        subjects.stored_of(tenant),
        subjects.stored_of(tenant, "notes.echo"),
        f"$KV.state.{prefix(tenant, 'notes')}>",
        f"$KV.state.{prefix(tenant, 'notes', 3)}>",
    ]


def made(tenant: str, service: str, action: str, number: str) -> list[str]:
    """All subjects and keys that are made from a tenant's id."""
    to = subjects.address(tenant, f"{service}.{action}")
    return [
        *(subjects.journal(to), subjects.request(to), subjects.dead(tenant, service, 7)),
        *(make(tenant, service, number) for make in LATER),
        f"journal.{subjects.partition(tenant)}.{tenant}.{service}.{action}",
        f"{subjects.inbox(tenant)}.{number}",
        f"{roles.tenant_inbox_prefix(tenant)}.x.7",
        f"$KV.state.{prefix(tenant, service)}{action}",
        f"$KV.state.{prefix(tenant, service, 3)}{action}",
        *(f"$KV.{bucket}.{tenant}" for bucket in ("tenants", "usage", "volumes")),
        *(f"$KV.{bucket}.{service}.{tenant}" for bucket in ("cursors", "replays")),
        f"$KV.redrives.{tenant}.7",
    ]


LATER = (subjects.schedule, subjects.timer, subjects.due)


def every_name(layer: Layer):  # type: ignore[no-untyped-def]
    """A try of each case that two ids make."""

    def mark(test):  # type: ignore[no-untyped-def]
        for case in (9, 12, 13, 14, 17, 18):
            test = cannot(case, layer)(test)
        return test

    return mark


@every_name(Layer.SERVER)
@given(pairs(), names, names, numbers)
@example(("a", "a-b"), "notes", "echo", "0" * 32)
@example(("tenant", "request"), "tenant", "request", "0" * 32)
def test_nothing_of_one_is_read_as_the_others(
    pair: tuple[str, str], service: str, action: str, number: str
) -> None:
    for one, other in (pair, pair[::-1]):
        theirs = made(other, service, action, number)
        for pattern in reads(one):
            assert not [subject for subject in theirs if matches(pattern, subject)], pattern


@every_name(Layer.SERVER)
@given(pairs())
def test_no_two_permissions_overlap(pair: tuple[str, str]) -> None:
    one, other = pair
    for mine in may(one):
        assert not [theirs for theirs in may(other) if overlap(mine, theirs)]


@cannot(9, Layer.STORE)
@given(pairs(), names)
def test_no_two_keys_are_the_same(pair: tuple[str, str], service: str) -> None:
    for make in (
        lambda each: made(each, service, "x", "0" * 32),
        lambda each: [key(each, "default"), key(each, service), tenant_tag(each)],
        lambda each: [f"{each}.e.x", f"{each}.t.7", f"{each}!", f"tenant:{each}", f"plan:{each}"],
    ):
        one, other = (set(make(each)) for each in pair)
        assert not one & other
        assert not [text for text in one for each in other if text.startswith(f"{each}.")]


@cannot(19, Layer.ROUTER)
@given(pairs(), st.text(LETTERS + "-_", min_size=1, max_size=9))
def test_no_answer_goes_from_one_to_the_other(pair: tuple[str, str], ending: str) -> None:
    one, other = pair
    subject = f"edge.{one}.notes.echo"
    assert may_answer(subject, f"{subjects.inbox(one)}.{ending}")
    assert not may_answer(subject, f"{subjects.inbox(other)}.{ending}")
    assert not may_answer(subject, f"{subjects.inbox(other)}.{one}.{ending}")


@cannot(19, Layer.ROUTER)
@given(ids, st.one_of(texts, texts.map(lambda text: f"_INBOX.{text}"), st.text(max_size=40)))
def test_whatever_is_answered_is_below_the_own_inbox(tenant: str, reply: str) -> None:
    if may_answer(f"edge.{tenant}.notes.echo", reply):
        assert matches(f"_INBOX.{tenant}.>", reply)
        assert not set(reply) & set(" \t\r\n*>")
        assert "" not in reply.split(".")


@can(9)
@can(12)
@can(17)
@can(19)
@given(ids, names, names, numbers)
def test_what_is_made_of_an_id_is_read_as_its_own(
    tenant: str, service: str, action: str, number: str
) -> None:
    own = made(tenant, service, action, number)
    own += [f"$KV.state.{prefix(tenant, 'notes', generation)}x" for generation in (0, 3)]
    own += [f"journal.{subjects.partition(tenant)}.{tenant}.notes.echo"]
    own += [f"$KV.checkpoints.notes.{subjects.partition(tenant)}"]
    for pattern in reads(tenant):
        assert [subject for subject in own if matches(pattern, subject)], pattern


# --- the grammar itself ------------------------------------------------------------------------


@cannot(1, Layer.GRAMMAR)
@cannot(2, Layer.GRAMMAR)
@cannot(3, Layer.GRAMMAR)
@cannot(4, Layer.GRAMMAR)
@cannot(5, Layer.GRAMMAR)
@cannot(7, Layer.GRAMMAR)
@given(st.one_of(texts, st.text(max_size=70), ids, st.tuples(ids, texts).map("".join)))
def test_an_id_is_one_token_of_a_subject_and_nothing_else(text: str) -> None:
    try:
        subjects.check_tenant(text)
    except BadSubject:
        return
    assert re.fullmatch(r"(?!-)[-a-z0-9]{1,63}(?<!-)", text, re.ASCII)
    assert text.encode() == text.lower().encode("ascii")


@cannot(1, Layer.GRAMMAR)
@cannot(10, Layer.GRAMMAR)
@given(texts, texts, texts, texts)
def test_a_subject_is_read_in_one_way_or_refused(
    root: str, tenant: str, service: str, action: str
) -> None:
    for subject in (f"{root}.{tenant}.{service}.{action}", f"tenant.{tenant}.{service}", root):
        try:
            to = subjects.parse(subject)
        except BadSubject:
            continue
        assert subjects.journal(to).split(".")[1:] == subject.split(".")[1:]
        assert subjects.parse(subjects.request(to)) == to
        assert len(to.tenant) <= 63


@given(ids, names, names)
def test_an_address_survives_being_stored(tenant: str, service: str, action: str) -> None:
    to = Address(tenant, service, action)
    stored = f"journal.{subjects.partition(tenant)}.{tenant}.{to.name}"
    assert subjects.parse_stored(stored) == to == subjects.parse(subjects.journal(to))
    assert matches(subjects.stored(subjects.partition(tenant), service, action), stored)
