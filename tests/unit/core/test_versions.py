"""Versions in the order of semver.org, section 11."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.subjects import is_version, version_key

ORDERED = [
    "0.0.0",
    "0.0.1",
    "0.1.0",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-10.0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-alpha-1",  # one identifier: a dash does not divide
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0-rc-10",
    "1.0.0-rc-2",  # letters and digits compare as text
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "10.0.0",
]

numbers = st.integers(0, 999_999_999)
identifiers = st.one_of(
    st.integers(0, 10**30).map(str),
    st.from_regex(r"[0-9a-z-]*[a-z-][0-9a-z-]*", fullmatch=True).map(lambda text: text[:20]),
).filter(lambda text: not text.isdigit() or text == str(int(text)))


@st.composite
def versions(draw: st.DrawFn) -> str:
    core = ".".join(str(draw(numbers)) for _ in range(3))
    pre = draw(st.lists(identifiers, max_size=4))
    return "-".join([core, ".".join(pre)] if pre else [core])


def precedes(one: str, other: str) -> bool:
    """The words of section 11, as directly as they can be written."""
    (core, _, pre), (core2, _, pre2) = one.partition("-"), other.partition("-")
    for number, number2 in zip(core.split("."), core2.split("."), strict=True):
        if number != number2:
            return int(number) < int(number2)
    if not pre or not pre2:
        return bool(pre) and not pre2
    parts, parts2 = pre.split("."), pre2.split(".")
    for part, part2 in zip(parts, parts2, strict=False):
        if part == part2:
            continue
        if part.isdigit() and part2.isdigit():
            return int(part) < int(part2)
        if part.isdigit() != part2.isdigit():
            return part.isdigit()
        return part.encode("ascii") < part2.encode("ascii")
    return len(parts) < len(parts2)


@pytest.mark.parametrize(("lower", "higher"), list(itertools.pairwise(ORDERED)))
def test_the_one_comes_before_the_other(lower: str, higher: str) -> None:
    assert version_key(lower) < version_key(higher)


@pytest.mark.parametrize("version", ORDERED)
def test_a_semantic_version_is_one(version: str) -> None:
    assert is_version(version)


@given(versions())
def test_every_semantic_version_is_one(version: str) -> None:
    assert is_version(version)


@given(versions(), versions())
def test_the_order_is_that_of_semver(one: str, other: str) -> None:
    assert (version_key(one) < version_key(other)) == precedes(one, other)


@given(versions(), versions())
def test_two_versions_have_two_keys(one: str, other: str) -> None:
    assert (version_key(one) == version_key(other)) == (one == other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "1.0.0.0",
        "v1.0.0",
        "01.0.0",
        "1.00.0",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0-a..b",
        "1.0.0-.a",
        "1.0.0-a.",
        "1.0.0-RC1",
        "1.0.0+build",
        "1.0.0-\u00e9",
        "1.0.\u0661",
        "1.0.0 ",
        "1.0.0\n",
        "1.0.0-rc\n",
        "-1.0.0",
        "1.0.0-*",
        "1.0.0-a>",
        "1.0.1234567890",
    ],
)
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    assert not is_version(text)


@given(st.text("0123456789.-ab*> \n", max_size=20))
def test_whatever_is_accepted_has_an_order(text: str) -> None:
    version = f"1.0.0-{text}"
    if is_version(version):
        assert precedes(version, "1.0.0")
        assert version_key(version) < version_key("1.0.0")
